"""Which runs under a base root may go: all but those in use, at work, last finished, and the newest."""

from __future__ import annotations

from steerlm_core.retrain.begin import FINISHED
from steerlm_core.retrain.promotion import PROMOTED
from steerlm_core.retrain.running import RUNNING
from steerlm_core.store import open_store
from steerlm_core.store.contents import ALONGSIDE, RUN, read_contents
from steerlm_core.store.gc import find_rubbish
from steerlm_core.store.run_store import RunStore


def is_base_root(store: RunStore) -> bool:
    """Whether runs lie below this root, and none at it."""
    return not store.exists(RUN) and any(store.exists(key) for key in (RUNNING, FINISHED, PROMOTED))


def old_runs(base: RunStore, keep: int) -> list[str]:
    """Return the roots of the runs that may go, the oldest first.

    Args:
        base: The base root.
        keep: So many of the newest stay, whatever became of them.
    """
    begun = {
        found.key.removesuffix(f"/{RUN}"): found.modified
        for found in base.listing("runs/")
        if found.key.count("/") == 2 and found.key.endswith(f"/{RUN}")
    }
    roots = [f"{base.root}/{key}" for key in sorted(begun, key=lambda key: begun[key])]
    needed = _needed(base)
    return [root for root in roots[: len(roots) - keep] if root not in needed]


def objects_of(root: str) -> tuple[list[str], int]:
    """Return the keys of all that a run consists of, `run.json` last, and their bytes; foreign files are not ours."""
    store = open_store(root)
    contents = read_contents(store)
    listed = {found.key: found.size for found in store.listing()}
    ours = {*contents.documents, *(part.key for part in contents.parts())}
    ours |= {found.key for found in find_rubbish(store, contents, None, None).unreferenced}
    ours |= {key for key in listed if key.startswith(ALONGSIDE) or "/train/" in key}
    keys = sorted(ours & listed.keys(), key=lambda key: (key == RUN, key))
    return keys, sum(listed[key] for key in keys)


def _needed(base: RunStore) -> set[str]:
    """The runs that hold a model in use or one to roll back to, the one at work, and the last finished."""
    found: set[str] = set()
    for key in (RUNNING, FINISHED, PROMOTED):
        document = base.document_versioned(key)
        if document is None:
            continue
        value = document[0]
        entries = [value["entries"][number] for number in value["in_use"]] if key == PROMOTED else [value]
        found |= {str(entry["root"]) for entry in entries if entry["root"]}
    return found
