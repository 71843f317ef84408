"""Every byte of a run against what its documents say: `steerlm verify`."""

from __future__ import annotations

from collections.abc import Callable

from steerlm_core.errors import RunStateError
from steerlm_core.store.contents import DECISION, Contents, iteration_prefix, read_contents
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
        prefix = iteration_prefix(number)
        for output in ("model", "evaluation"):
            manifest = contents.manifests.get(f"{prefix}/{output}")
            if manifest is None:
                found[f"{prefix}/{output}/manifest.json"] = "missing, though the iteration is committed"
            elif commit[output] != manifest.content_digest:
                found[f"{prefix}/{output}/manifest.json"] = "is not the output that the iteration's commit names"
    for number in range(contents.iterations):
        prefix = f"{iteration_prefix(number)}/evaluation"
        document, manifest = contents.documents.get(f"{prefix}/evaluation.json"), contents.manifests.get(prefix)
        if document is not None and (manifest is None or manifest.metrics["summary"] != document):
            found[f"{prefix}/evaluation.json"] = "differs from what its manifest says"
    decision = contents.documents.get(DECISION)
    if decision is not None and (not contents.commits or contents.commits[-1] != decision):
        found[DECISION] = "is not the commit of the last iteration"
    return found
