"""Many runners at one root, and runners that sleep past their lease at each kind of write."""

from __future__ import annotations

import pytest

from tests.crash.runners import MISTAKE
from tests.crash.trials import Trials, check_a_sleeper, check_all_at_once

# Where a runner falls asleep, and how it ends: after the check of its lease it finds its own bytes committed.
SLEEPS = {
    "models/prior/.*safetensors": MISTAKE,
    "iterations/000/labels/part.*": MISTAKE,
    "iterations/000/labels/records/.*": MISTAKE,
    "iterations/000/labels/manifest.json": 0,
    "iterations/000/model/.*safetensors": MISTAKE,
    "iterations/000/model/manifest.json": 0,
    "iterations/000/evaluation/part.*": MISTAKE,
    "iterations/001/commit.json": 0,
    "decision.json": 0,
    "confirmation/.*/groups/part.*": MISTAKE,
    "confirmation/.*/confirmation.json": 0,
}


def test_sixteen_runners_at_one_root(trials: Trials, bucket: str) -> None:
    check_all_at_once(trials, bucket, 16)


@pytest.mark.parametrize(("key", "code"), SLEEPS.items())
def test_a_runner_that_slept_through_its_lease_changes_nothing(
    trials: Trials, bucket: str, key: str, code: int
) -> None:
    check_a_sleeper(trials, bucket, key, code)
