"""`promoted.json`: which model is in use under a base root, and which were before it.

It only ever moves by a conditional put, so that of two promotions one is refused. Nothing is
copied: the document names a model in its run.
"""

from __future__ import annotations

import time
from types import EllipsisType
from typing import Any

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.store import absolute_root
from steerlm_core.store.contents import Contents, read_contents
from steerlm_core.store.hashes import whole_folder
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal


class OvertakenError(RunStateError):
    """Another model has come into use than the one that must be."""


class ChangedMeanwhileError(RunStateError):
    """Somebody else's change of `promoted.json` was faster."""


def promoted(base: RunStore) -> dict[str, Any] | None:
    """Return the entry of the model in use; None before the first promotion."""
    found = _read(base)[1]
    return found["entries"][found["in_use"][-1]] if found["in_use"] else None


def history(base: RunStore) -> list[dict[str, Any]]:
    """Return every promotion and every rollback, in order."""
    return list(_read(base)[1]["entries"])


def promote(base: RunStore, run: RunStore, why: str, instead_of: str | EllipsisType | None = ...) -> dict[str, Any]:
    """Put the best model of a run into use.

    Args:
        base: The base root.
        run: Root of the run.
        why: The words that the history will show.
        instead_of: Content digest of the model that must be in use now, None for none; left out: any.

    Returns:
        The entry of the model in use.

    Raises:
        OvertakenError: Another model has come into use meanwhile.
        ChangedMeanwhileError: The document was changed at this moment.
        RunStateError: The run has no good model.
    """
    entry = {**describe(run), "why": why, "since": _now()}
    version, found = _read(base)
    present = found["entries"][found["in_use"][-1]] if found["in_use"] else None
    digest = present["content_digest"] if present else None
    if present is not None and digest == entry["content_digest"]:
        return dict(present)
    if instead_of is not ... and digest != instead_of:
        raise OvertakenError(
            f"{base.url(layout.PROMOTED)}: another model has come into use since this run started. Compare them, then: "
            f"steerlm promote {run.root}"
        )
    _move(base, version, [*found["entries"], entry], [*found["in_use"], len(found["entries"])])
    return entry


def rollback(base: RunStore) -> dict[str, Any]:
    """Put the model before the present one into use again; once more, the one before that.

    Raises:
        RunStateError: There is none.
    """
    version, found = _read(base)
    if len(found["in_use"]) < 2:
        raise RunStateError(f"{base.url(layout.PROMOTED)}: there is no model before the present one to go back to.")
    *_, back, gone = (found["entries"][number] for number in found["in_use"])
    entry = {**back, "why": f"Rolled back from run '{gone['run_id']}'.", "since": _now()}
    _move(base, version, [*found["entries"], entry], found["in_use"][:-1])
    return dict(back)


def describe(run: RunStore) -> dict[str, Any]:
    """Return what `promoted.json` says of the best model of a run.

    Raises:
        RunStateError: No iteration was accepted, or the best model was never confirmed.
    """
    root, contents = absolute_root(run.root), read_contents(run)
    best = best_iteration(contents)
    if best is None:
        raise RunStateError(f"{root}: no iteration was accepted, so there is no model to promote.")
    confirmation = contents.documents.get(layout.confirmation_document(layout.confirmation(best)))
    if confirmation is None:
        raise RunStateError(f"{root}: iteration {best} is not confirmed; `steerlm resume {root}` does that.")
    manifest = contents.manifests[layout.policy_model(best)]
    return {
        "root": root,
        "run_id": contents.run_id,
        "iteration": best,
        "model": f"{root}/{''.join(whole_folder(manifest, root))}",
        "content_digest": manifest.content_digest,
        "distance": confirmation["distance"],
    }


def best_iteration(contents: Contents) -> int | None:
    """Return the best accepted iteration of a run; None where there is none."""
    return contents.commits[-1]["best_iteration"] if contents.commits else None


def iterations_in_use(base: RunStore | None, contents: Contents) -> set[int]:
    """Return the iterations of a run whose models `promoted.json` of its base root has in use, or to roll back to."""
    if base is None:
        return set()
    found = _read(base)[1]
    entries = [found["entries"][number] for number in found["in_use"]]
    return {int(entry["iteration"]) for entry in entries if entry["run_id"] == contents.run_id}


def _read(base: RunStore) -> tuple[str | None, dict[str, Any]]:
    """The document's version and content: all entries, and the numbers of those in use, one on top of the other."""
    found = base.document_versioned(layout.PROMOTED)
    return (None, {"entries": [], "in_use": []}) if found is None else (found[1], found[0])


def _move(base: RunStore, version: str | None, entries: list[dict[str, Any]], in_use: list[int]) -> None:
    data = seal({"entries": entries, "in_use": in_use})
    moved = base.create(layout.PROMOTED, data) if version is None else base.swap(layout.PROMOTED, data, version)
    if not moved:
        raise ChangedMeanwhileError(
            f"{base.url(layout.PROMOTED)}: somebody has changed it at this moment; look again, and repeat."
        )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
