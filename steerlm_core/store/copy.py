"""A run from one store to another, verified on both sides: `steerlm copy`.

Parts go first, then the documents that name them, and `run.json` last: a copy that broke off is no
run yet, and the next attempt goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Callable

from steerlm_core.errors import RunStateError
from steerlm_core.sealed import seal
from steerlm_core.store.contents import ALONGSIDE, RUN, Contents, read_contents
from steerlm_core.store.run_store import RunStore


def copy_run(source: RunStore, target: RunStore, progress: Callable[[int, int, str], None]) -> Contents:
    """Copy a run.

    Args:
        source: Where it lies.
        target: Where it is to lie: an empty root, or one that holds a part of the same run.
        progress: Called with (objects done, objects of all, unit).

    Returns:
        What was copied.

    Raises:
        RunStateError: The source is damaged, or the target holds another run.
    """
    contents = read_contents(source)
    for key, what in contents.problems.items():
        raise RunStateError(f"{source.url(key)}: {what}. A damaged run is not copied; see `steerlm verify`.")
    _refuse_another_run(target, contents)
    parts = list(contents.parts())
    total = len(parts) + len(contents.documents)
    for done, part in enumerate(parts, 1):
        if target.size(part.key) != part.size:
            target.upload(part.key, source.local_file(part))
        target.verify(part)
        progress(done, total, "objects")
    for prefix in ALONGSIDE:
        for found in source.listing(prefix):
            target.put(found.key, source.read(found.key))
    ordered = sorted(contents.documents, key=lambda key: key == RUN)
    for done, key in enumerate(ordered, len(parts) + 1):
        if not target.create(key, seal(contents.documents[key])):
            raise RunStateError(f"{target.url(key)}: stands there already, with another content.")
        progress(done, total, "objects")
    return contents


def _refuse_another_run(target: RunStore, contents: Contents) -> None:
    if target.exists(RUN):
        there = read_contents(target).run_id
        if there != contents.run_id:
            raise RunStateError(f"{target.root}: holds run '{there}'. Copy to an empty root.")
