"""Which runs under a base root may go: all but those in use, at work, last finished, and the newest."""

from __future__ import annotations

from steerlm_core import layout
from steerlm_core.layout.kinds import recognise
from steerlm_core.retrain.running import run_name, run_root
from steerlm_core.store import open_store
from steerlm_core.store.gc import at_work
from steerlm_core.store.run_store import RunStore


def is_base_root(store: RunStore) -> bool:
    """Whether runs lie below this root, and none at it."""
    return not store.exists(layout.RUN) and any(
        store.exists(key) for key in (layout.RUNNING, layout.FINISHED, layout.PROMOTED)
    )


def old_runs(base: RunStore, keep: int) -> list[RunStore]:
    """Return the runs that may go, the oldest first.

    Args:
        base: The base root.
        keep: So many of the newest stay, whatever became of them.
    """
    begun = {name: found.modified for found in base.listing(layout.RUNS) if (name := layout.run_begun(found.key))}
    names = sorted(begun, key=lambda name: begun[name])
    needed = _needed(base)
    old = [open_store(run_root(base, name)) for name in names[: max(0, len(names) - keep)] if name not in needed]
    return [run for run in old if not at_work(run)]  # one resumed by hand is in no document


def objects_of(run: RunStore) -> tuple[list[str], int]:
    """Return the keys of all that a run consists of, `run.json` last, and their bytes; foreign files are not ours.

    By their names: of a run that is damaged, or half removed, the documents do not tell.
    """
    ours = {found.key: found.size for found in run.listing() if recognise(found.key)}
    return sorted(ours, key=lambda key: (key == layout.RUN, key)), sum(ours.values())


def _needed(base: RunStore) -> set[str]:
    """Names of the runs that hold a model in use or one to roll back to, of the one at work, and the last finished.

    By name, as users may have spelled one root in many ways: rather a run too many stays.
    """
    found: set[str] = set()
    for key in (layout.RUNNING, layout.FINISHED, layout.PROMOTED):
        document = base.document_versioned(key)
        if document is None:
            continue
        value = document[0]
        entries = [value["entries"][number] for number in value["in_use"]] if key == layout.PROMOTED else [value]
        found |= {run_name(entry["root"]) for entry in entries if entry["root"]}
    return found
