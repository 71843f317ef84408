"""begin: which run a job is to do under a base root, if any.

an unfinished run of the same configuration ─► that run, resumed
the material of the last finished run       ─► nothing
else                                        ─► a new run, from the promoted policy
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.retrain import running
from steerlm_core.retrain.material import material_digest
from steerlm_core.retrain.promotion import promoted
from steerlm_core.store import open_store
from steerlm_core.store.probe import probe
from steerlm_core.store.run_store import RunStore


@dataclass(frozen=True)
class Begun:
    """What a job is to do.

    Attributes:
        store: Root of its run; None where there is nothing new.
        config: Configuration of the run, if it is a new one.
        origin: What `run.json` says of where a new run comes from.
        words: The same for people.
    """

    store: RunStore | None
    config: RunConfig | None
    origin: dict[str, Any]
    words: str


def begin(base: RunStore, config: RunConfig, job: running.Job, ended: running.Ended) -> Begun:
    """Claim the base root, and choose the run.

    Args:
        base: Where the runs lie.
        config: As the user gave it.
        job: Who is to train.
        ended: Tells whether a Workflow has ended.

    Raises:
        RunStateError: Another job is at work.
        DataError: Something that the configuration names does not exist.
    """
    material = material_digest(config)
    probe(base)
    root = running.claim(base, job, ended)
    unfinished = None if root is None else open_store(root)
    if unfinished is not None and _material_of(unfinished) == material:
        running.set_root(base, job.name, unfinished.root)
        return Begun(unfinished, None, {}, f"Going on with the unfinished run {unfinished.root}.")
    if _last_material(base) == material:
        running.release(base, job.name)
        return Begun(None, None, {}, f"Nothing new: the last finished run under {base.root} had the same material.")
    root, entry = running.run_root(base, job.name), promoted(base)
    origin = {
        "base_root": base.root,
        "material": material,
        "started_from": entry["content_digest"] if entry else None,
    }
    running.set_root(base, job.name, root)
    start = f"from the promoted model of run '{entry['run_id']}'" if entry else "from a new policy 0"
    return Begun(open_store(root), _from_promoted(config, entry), origin, f"A new run, {root}, {start}.")


def _from_promoted(config: RunConfig, entry: dict[str, Any] | None) -> RunConfig:
    if entry is None:
        return config
    return config.model_copy(update={"models": config.models.model_copy(update={"policy": entry["model"]})})


def _material_of(run: RunStore) -> str | None:
    found = run.document_versioned(layout.RUN)
    return None if found is None else found[0]["origin"].get("material")


def _last_material(base: RunStore) -> str | None:
    found = base.document_versioned(layout.FINISHED)
    return None if found is None else str(found[0]["material"])
