"""Runs of the toy world that have come to their end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from steerlm_core.loop import run_loop
from steerlm_core.observe.events import EventLog
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.verify import verify
from tests.toy.world import build, small

Finished = Callable[[int], Path]


def finished_runs(new_folder: Callable[[str], Path]) -> Finished:
    """Return what makes a run of so many iterations, each once."""
    config, made = small(build(new_folder("toy"))), dict[int, Path]()

    def finished(iterations: int) -> Path:
        if iterations not in made:
            made[iterations] = new_folder("finished") / "run"
            run_loop(str(made[iterations]), config, EventLog("toy", None), iterations)
        return made[iterations]

    return finished


def problems(store: RunStore) -> dict[str, str]:
    """Return what `verify` finds, by key."""
    return verify(store, lambda *_: None)[1]
