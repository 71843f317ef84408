"""Runs of the toy world that have come to their end, and what a run has found out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.verify import verify
from tests.once import Once
from tests.runs import loop_at
from tests.toy.world import build, small

RESULTS = re.compile(r"decision\.json|iterations/\d+/commit\.json|.*/(evaluation|confirmation)\.json")

Finished = Callable[[int], Path]


def small_toy(once: Once) -> RunConfig:
    """Return the configuration of the toy world's small form."""
    folder = once.made("toy", lambda folder: (folder / "small.json").write_text(small(build(folder)).model_dump_json()))
    return parse_config(json.loads((folder / "small.json").read_text()), "toy")


def finished_runs(once: Once, config: RunConfig) -> Finished:
    """Return what makes a run of so many iterations."""

    def finished(iterations: int) -> Path:
        made = once.made(f"finished-{iterations}", lambda folder: loop_at(folder / "run", config, iterations))
        return made / "run"

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
