"""What may go: objects that no document refers to, and old iterations that retention does not keep.

Only objects whose names are of our own making are ever removed; whatever else lies in the folder
stays. What has no manifest yet is left alone while a runner is at work, and for a day after it was
written: between two looks of gc a runner may come and go, and the pods of a training job hold no
lease themselves.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from steerlm_core import layout
from steerlm_core.layout.kinds import Kind, recognise
from steerlm_core.store.contents import Contents
from steerlm_core.store.lease import Claim
from steerlm_core.store.objects import Listed
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal

_SILENT_SECONDS = 600.0  # a lease not renewed for so long is dead, however slow its clock and its lister's
_UNFINISHED = (Kind.PART, Kind.RECORD, Kind.LEASE, Kind.WRITING)  # a checkpoint may be gone on from, however old
_UNFINISHED_SECONDS = 86_400.0  # younger than that, what has no manifest may be waiting for it


@dataclass
class Rubbish:
    """What gc would remove.

    Attributes:
        unreferenced: Objects that no document names, beside a manifest that stands.
        unfinished: Old outputs without a manifest, leases, and files that were being written.
        retired: Keys of outputs that retention does not keep, by their prefix.
        at_work: Who is at work on the run; while somebody is, unfinished outputs are left alone.
    """

    unreferenced: list[Listed] = field(default_factory=list)
    unfinished: list[Listed] = field(default_factory=list)
    retired: dict[str, list[Listed]] = field(default_factory=dict)
    at_work: list[str] = field(default_factory=list)

    def everything(self) -> list[Listed]:
        """All objects that would go."""
        return [*self.unreferenced, *self.unfinished, *(found for some in self.retired.values() for found in some)]


def find_rubbish(
    store: RunStore,
    contents: Contents,
    keep_models: int | None,
    keep_candidates: int | None,
    in_use: Collection[int] = (),
) -> Rubbish:
    """Find what gc would remove.

    Args:
        store: The run root.
        contents: What the run consists of.
        keep_models: Newest iterations that keep their model; the best, the last accepted and the last always do;
            None: all.
        keep_candidates: Newest iterations that keep candidates, labels, prior scores and groups; None: all.
        in_use: Iterations that keep all they have, as their model is promoted.
    """
    youngest = time.time() - _UNFINISHED_SECONDS
    retired = set(retired_prefixes(contents, keep_models, keep_candidates, in_use))
    owner = {part.key: prefix for prefix, manifest in contents.manifests.items() for part in manifest.parts}
    rubbish = Rubbish(at_work=at_work(store))
    for found in store.listing():
        prefix = owner.get(found.key)
        if prefix in retired:
            rubbish.retired.setdefault(prefix, []).append(found)
        elif (prefix is None or prefix in contents.removed) and (known := recognise(found.key)):
            if known.output in contents.manifests:
                rubbish.unreferenced.append(found)
            elif known.kind in _UNFINISHED and not (rubbish.at_work or found.modified > youngest):
                rubbish.unfinished.append(found)
    return rubbish


def remove(store: RunStore, rubbish: Rubbish) -> list[Listed]:
    """Remove it, and return what has gone; an output of a retired iteration says first that it goes on purpose."""
    for prefix, parts in rubbish.retired.items():
        _say_removed(store, prefix, [found.key for found in parts])
    gone = replace(rubbish, unfinished=[]).everything()
    store.delete([found.key for found in gone])
    return gone + _remove_unfinished(store, rubbish.unfinished)


def _remove_unfinished(store: RunStore, unfinished: list[Listed]) -> list[Listed]:
    """Remove outputs without a manifest, unless somebody has taken one up since they were found.

    A resumed step takes a record's word that its part is there, so records go first. Whoever has read one before is at
    work still, or has committed.
    """
    if at_work(store):
        return []
    gone = [found for found in unfinished if not _is_part_of(found)]
    store.delete([found.key for found in gone])
    if at_work(store):
        return gone
    parts = [found for found in unfinished if _is_part_of(found)]
    committed = {output for output in map(_is_part_of, parts) if store.exists(layout.manifest(output))}
    parts = [found for found in parts if _is_part_of(found) not in committed]
    store.delete([found.key for found in parts])
    return gone + parts


def _is_part_of(found: Listed) -> str:
    """The output that an object is a part of; empty where it is none."""
    known = recognise(found.key)
    return known.output if known and known.kind is Kind.PART else ""


def retire(
    store: RunStore,
    contents: Contents,
    keep_models: int | None,
    keep_candidates: int | None,
    in_use: Collection[int] = (),
) -> None:
    """Remove what retention does not keep, without listing anything."""
    for prefix in retired_prefixes(contents, keep_models, keep_candidates, in_use):
        keys = [part.key for part in contents.manifests[prefix].parts]
        _say_removed(store, prefix, keys)
        store.delete(keys)


def _say_removed(store: RunStore, prefix: str, keys: Iterable[str]) -> None:
    """Note that these are gone on purpose, before they are gone."""
    store.create(layout.removed(prefix), seal({"removed": sorted(keys)}))


def retired_prefixes(
    contents: Contents, keep_models: int | None, keep_candidates: int | None, in_use: Collection[int] = ()
) -> Iterable[str]:
    """Yield the outputs of committed iterations that retention does not keep, and that are still there."""
    commits = contents.commits
    accepted = [number for number, commit in enumerate(commits) if commit["accepted"]]
    always = {len(commits) - 1, *in_use, *accepted[-1:], *(commit["best_iteration"] for commit in commits[-1:])}
    for outputs_of, keep in ((_model, keep_models), (_samples, keep_candidates)):
        for number in range(len(commits) - keep if keep is not None else 0):
            for prefix in outputs_of(number):
                if number not in always and prefix in contents.manifests and prefix not in contents.removed:
                    yield prefix


def _model(number: int) -> tuple[str, ...]:
    return (layout.policy_model(number),)


def _samples(number: int) -> tuple[str, ...]:
    return layout.stage_outputs(layout.iteration(number))


def at_work(store: RunStore) -> list[str]:
    """Return who holds a lease of the run, and which."""
    return [name for name, _, silent in _held(store) if not silent]


def left_behind(store: RunStore, since: float) -> list[str]:
    """Return whose leases have run out, and were not given back; only those that were renewed since a time."""
    return [name for name, renewed, silent in _held(store) if silent and renewed >= since]


def _held(store: RunStore) -> list[tuple[str, float, bool]]:
    """Return the leases that were not given back: which and whose, when they were renewed, whether too long ago."""
    found = []
    for listed in store.listing(layout.LEASES):
        held = store.read_versioned(listed.key)
        claim = Claim.from_bytes(held[0]) if held else None
        if claim is None or claim.is_dead:
            continue
        silent = time.time() - listed.modified >= max(_SILENT_SECONDS, 2 * claim.seconds)
        found.append((f"{layout.lease_name(listed.key)}: {claim.owner}", listed.modified, silent))
    return sorted(found)
