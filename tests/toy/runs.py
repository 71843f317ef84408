"""Runs of the toy world that have come to their end, and what a run has found out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.verify import verify
from tests.runs import loop_at
from tests.toy.world import build, small

RESULTS = re.compile(r"decision\.json|iterations/\d+/commit\.json|.*/(evaluation|confirmation)\.json")

Finished = Callable[[int], Path]


def finished_runs(new_folder: Callable[[str], Path]) -> Finished:
    """Return what makes a run of so many iterations, each once."""
    config, made = small(build(new_folder("toy"))), dict[int, Path]()

    def finished(iterations: int) -> Path:
        if iterations not in made:
            made[iterations] = new_folder("finished") / "run"
            loop_at(made[iterations], config, iterations)
        return made[iterations]

    return finished


def results(root: str) -> dict[str, bytes]:
    """Return what a run has found out, by key; no times, no run's id and no place: equal runs have equal bytes.

    A commit carries the digests of the model and of every held-out group's distance.
    """
    store = open_store(root)
    return {found.key: store.read(found.key) for found in store.listing() if RESULTS.fullmatch(found.key)}


def problems(store: RunStore) -> dict[str, str]:
    """Return what `verify` finds, by key."""
    return verify(store, lambda *_: None)[1]
