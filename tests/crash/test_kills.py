"""kill -9 of a runner, once before and once after every write to the store, and at random moments of every step."""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.runners import PLANNED, Signal, finish
from tests.crash.trials import Trials, step_seconds
from tests.crash.world import STEPS

MOMENTS_OF_A_STEP = 7
# Writes whose number depends on the clock: some of each.
BY_THE_CLOCK = {
    "leases/probe.*": 3, "leases/000-generate.json": 4, "leases/001-train.json": 2, "events/.*": 2,
    "iterations/000/train/checkpoints/.*": 4,
}  # fmt: skip


@pytest.fixture(params=["disk", "bucket"])
def new_root(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Names a new root at each call."""
    base = str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("bucket"))
    return lambda: f"{base}/{uuid.uuid4().hex}"


def _each(what: Callable[[object], object], cases: Iterable[object]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(what, cases):
            pass


def test_killed_before_and_after_every_write(trials: Trials, new_root, capsys):
    root, started = new_root(), time.monotonic()
    writes = [write for write in finish(trials.folder, root, trials.config).writes if re.fullmatch(PLANNED, write.key)]
    cases = [(number, when) for number in range(len(writes)) for when in ("before", "after")]

    def kill(case: tuple[int, str]) -> None:
        killed = trials.kill_at(new_root(), Signal(*case))
        last = [write for write in killed.writes if re.fullmatch(PLANNED, write.key)][-1]
        assert (last.action, last.key) == (writes[case[0]].action, writes[case[0]].key)

    _each(kill, cases)
    assert len(writes) > 100
    with capsys.disabled():
        print(f"\n{len(cases)} kills around {len(writes)} writes in {time.monotonic() - started:.0f} s")


def test_killed_at_writes_that_depend_on_the_clock(trials: Trials, bucket: str):
    cases = [
        Signal(number, when, key)
        for key, count in BY_THE_CLOCK.items()
        for number in range(count)
        for when in ("before", "after")
    ]
    _each(lambda at: trials.kill_at(f"{bucket}/{uuid.uuid4().hex}", at), cases)


def test_killed_at_random_moments_of_every_step(trials: Trials, bucket: str, capsys):
    started = time.monotonic()
    took = step_seconds(finish(trials.folder, bucket, trials.config).writes, STEPS)
    seed = time.time_ns() % 10_000
    rng = random.Random(seed)
    cases = [(step, rng.uniform(0, took[step])) for step in STEPS for _ in range(MOMENTS_OF_A_STEP)]

    def kill(case: tuple[str, float]) -> str:
        step, seconds = case
        while (runner := trials.kill_after(f"{bucket}/{uuid.uuid4().hex}", step, seconds)) is None:
            seconds /= 2
        return [write.key for write in runner.writes if write.key.startswith("leases/")][-1]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        fell = list(pool.map(kill, cases))
    with capsys.disabled():
        print(f"\nseed {seed}: {len(fell)} kills in {len(set(fell))} steps in {time.monotonic() - started:.0f} s")
    assert len(fell) >= 100
