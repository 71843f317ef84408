"""Every byte of a run against what its documents say: `steerlm verify`."""

from __future__ import annotations

from collections.abc import Callable

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.store.contents import Contents, read_contents
from steerlm_core.store.run_store import RunStore

Progress = Callable[[int, int, str], None]


def verify(store: RunStore, progress: Progress) -> tuple[Contents, dict[str, str]]:
    """Check the documents of a run against each other, and every part against its manifest.

    Args:
        store: The run root.
        progress: Called with (parts done, parts of all, unit).

    Returns:
        The run's contents, and what is wrong, by key; empty for a sound run.

    Raises:
        RunStateError: There is no run.
    """
    contents = read_contents(store)
    problems = {**contents.problems, **_contradictions(contents)}
    parts = list(contents.parts())
    for done, part in enumerate(parts, 1):
        try:
            store.verify(part)
        except RunStateError as error:
            problems[part.key] = str(error).removeprefix(f"{store.url(part.key)}: ")
        progress(done, len(parts), "parts")
    return contents, problems


def _contradictions(contents: Contents) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, commit in enumerate(contents.commits):
        for field, prefix in (("model", layout.policy_model(number)), ("evaluation", layout.evaluation(number))):
            manifest = contents.manifests.get(prefix)
            if manifest is None:
                found[layout.manifest(prefix)] = "missing, though the iteration is committed"
            elif commit[field] != manifest.content_digest:
                found[layout.manifest(prefix)] = "is not the output that the iteration's commit names"
    for number in range(contents.iterations):
        key = layout.evaluation_document(layout.evaluation(number))
        document, manifest = contents.documents.get(key), contents.manifests.get(layout.evaluation(number))
        if document is not None and (manifest is None or manifest.metrics["summary"] != document):
            found[key] = "differs from what its manifest says"
    decision = contents.documents.get(layout.DECISION)
    if decision is not None and (not contents.commits or contents.commits[-1] != decision):
        found[layout.DECISION] = "is not the commit of the last iteration"
    return found
