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

from steerlm_core.sealed import seal
from steerlm_core.store.contents import STAGE_OUTPUTS, Contents, iteration_prefix
from steerlm_core.store.lease import Claim
from steerlm_core.store.names import is_of_training, is_part, output_of
from steerlm_core.store.objects import Listed
from steerlm_core.store.run_store import REMOVED, RunStore

_SILENT_SECONDS = 600.0  # a lease not renewed for so long is dead, however slow its clock and its lister's
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
        elif (prefix is None or prefix in contents.removed) and (output := output_of(found.key)) is not None:
            if output in contents.manifests:
                rubbish.unreferenced.append(found)
            elif not (rubbish.at_work or found.modified > youngest or is_of_training(found.key)):
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
    gone = [found for found in unfinished if not is_part(found.key)]
    store.delete([found.key for found in gone])
    if at_work(store):
        return gone
    parts = [found for found in unfinished if is_part(found.key)]
    prefixes = {output_of(found.key) for found in parts}
    committed = {prefix for prefix in prefixes if store.exists(f"{prefix}/manifest.json")}
    parts = [found for found in parts if output_of(found.key) not in committed]
    store.delete([found.key for found in parts])
    return gone + parts


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
    store.create(f"{prefix}/{REMOVED}", seal({"removed": sorted(keys)}))


def retired_prefixes(
    contents: Contents, keep_models: int | None, keep_candidates: int | None, in_use: Collection[int] = ()
) -> Iterable[str]:
    """Yield the outputs of committed iterations that retention does not keep, and that are still there."""
    commits = contents.commits
    accepted = [number for number, commit in enumerate(commits) if commit["accepted"]]
    always = {len(commits) - 1, *in_use, *accepted[-1:], *(commit["best_iteration"] for commit in commits[-1:])}
    for names, keep in ((("model",), keep_models), (STAGE_OUTPUTS, keep_candidates)):
        for number in range(len(commits) - keep if keep is not None else 0):
            for name in names:
                prefix = f"{iteration_prefix(number)}/{name}"
                if number not in always and prefix in contents.manifests and prefix not in contents.removed:
                    yield prefix


def at_work(store: RunStore) -> list[str]:
    """Return who holds a lease of the run, and which."""
    return [name for name, _, silent in _held(store) if not silent]


def left_behind(store: RunStore, since: float) -> list[str]:
    """Return whose leases have run out, and were not given back; only those that were renewed since a time."""
    return [name for name, renewed, silent in _held(store) if silent and renewed >= since]


def _held(store: RunStore) -> list[tuple[str, float, bool]]:
    """Return the leases that were not given back: which and whose, when they were renewed, whether too long ago."""
    found = []
    for listed in store.listing("leases/"):
        held = store.read_versioned(listed.key)
        claim = Claim.from_bytes(held[0]) if held else None
        if claim is None or claim.is_dead:
            continue
        silent = time.time() - listed.modified >= max(_SILENT_SECONDS, 2 * claim.seconds)
        name = listed.key.removeprefix("leases/").removesuffix(".json")
        found.append((f"{name}: {claim.owner}", listed.modified, silent))
    return sorted(found)
