"""A run from one store to another, verified on both sides: `steerlm copy`.

Parts go first, then the documents that name them, and `run.json` last: a copy that broke off is no
run yet, and the next attempt goes on where it ended. Copied back over the run, it replaces what is
damaged there, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.store.contents import Contents, read_contents
from steerlm_core.store.manifest import Part
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal, unseal


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
        _copy_part(source, target, part)
        progress(done, total, "objects")
    for prefix in layout.ALONGSIDE:
        for found in source.listing(prefix):
            target.put(found.key, source.read(found.key))
    ordered = sorted(contents.documents, key=lambda key: key == layout.RUN)
    for done, key in enumerate(ordered, len(parts) + 1):
        _copy_document(target, key, seal(contents.documents[key]))
        progress(done, total, "objects")
    return contents


def _copy_part(source: RunStore, target: RunStore, part: Part) -> None:
    """Upload a part, unless it stands there whole."""
    if target.size(part.key) == part.size:
        with suppress(RunStateError):
            return target.verify(part)
    with source.passing_file(part) as path:
        target.upload(part.key, path)
    target.verify(part)


def _copy_document(target: RunStore, key: str, data: bytes) -> None:
    """Write a document; only a damaged one makes way."""
    if target.create(key, data):
        return
    found = target.read_versioned(key)
    if found is None or _is_sealed(found[0]) or not target.swap(key, data, found[1]):
        raise RunStateError(f"{target.url(key)}: stands there already, with another content. Copy to an empty root.")


def _is_sealed(data: bytes) -> bool:
    try:
        unseal(data, "")
    except RunStateError:
        return False
    return True


def _refuse_another_run(target: RunStore, contents: Contents) -> None:
    """Refuse a target that holds another run; where its run.json is damaged, its manifests say which run it is."""
    if target.exists(layout.RUN):
        there = read_contents(target)
        found = {there.run_id} if there.run_id else {manifest.run_id for manifest in there.manifests.values()}
        for run_id in found - {contents.run_id}:
            raise RunStateError(f"{target.root}: holds run '{run_id}'. Copy to an empty root.")
