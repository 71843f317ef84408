"""Runners that are killed, stalled, or many at one root: some of each kind; the other files have all."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from steerlm_core.errors import LeaseLostError
from steerlm_core.steps import train
from steerlm_core.steps.context import Stage
from tests.crash.runners import MISTAKE, Signal, finish, start
from tests.crash.trials import check_a_sleeper, check_all_at_once
from tests.runs import run_at
from tests.toy.runs import results

long = pytest.mark.long
IN_A_BUCKET = pytest.param("bucket", marks=long)


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Names a new root on the disk or in the bucket."""
    return lambda place: str(tmp_path / "root") if place == "disk" else request.getfixturevalue("bucket")


@long
def test_an_undisturbed_run_in_a_bucket_finds_what_one_on_a_disk_finds(trials, bucket):
    finish(trials.folder, bucket, trials.config)
    assert results(bucket) == trials.expected
    assert {"decision.json", "confirmation/iteration-001/confirmation.json"} < trials.expected.keys()


@pytest.mark.parametrize(
    ("place", "key", "when"),
    [("disk", "iterations/000/labels/part-00001.*", "before"),
     pytest.param("disk", "iterations/000/commit.json", "after", marks=long),
     pytest.param("bucket", "run.json", "after", marks=long),
     pytest.param("bucket", "iterations/000/candidates/records/00001.json", "after", marks=long),
     pytest.param("bucket", "iterations/001/model/.*", "before", marks=long),
     pytest.param("bucket", "decision.json", "before", marks=long)],
)  # fmt: skip
def test_a_run_killed_at_a_write_resumes_to_the_same_results(trials, root, place, key, when):
    trials.kill_at(root(place), Signal(0, when, key))


@pytest.mark.parametrize("place", ["disk", IN_A_BUCKET])
def test_what_a_killed_runner_held_is_taken_over_at_once(trials, root, place):
    """Its lease would hold for another day."""
    runtime = trials.config.runtime.model_copy(update={"lease_seconds": 86_400.0})
    config = trials.config.model_copy(update={"runtime": runtime})
    runner = start(trials.folder, root(place), config, at=Signal(0, "before", "iterations/000/groups/.*"))
    assert runner.end() == -signal.SIGKILL
    trials.resume(root(place))


@long
@pytest.mark.parametrize(
    ("place", "key", "code"),
    [("disk", "iterations/000/model/.*", MISTAKE), ("bucket", "iterations/000/labels/part.*", MISTAKE),
     ("bucket", "iterations/001/commit.json", 0)],
)  # fmt: skip
def test_a_runner_that_slept_through_its_lease_changes_nothing(trials, root, place, key, code):
    check_a_sleeper(trials, root(place), key, code)


def test_training_stops_once_its_lease_is_lost(trials, tmp_path):
    """It may have days to go."""
    root = Path(shutil.copytree(trials.folder / "undisturbed", tmp_path / "root"))
    for folder in ("model", "train"):
        shutil.rmtree(root / "iterations/000" / folder)
    run = run_at(root)
    always = run.config.runtime.model_copy(update={"lease_seconds": 1e-6})
    run = replace(run, config=run.config.model_copy(update={"runtime": always}))

    def lost() -> None:
        raise LeaseLostError("another has it")

    stage = Stage("iterations/000", "models/policy-0", ("held_out", "train"), 0)
    with run.log.step("train") as events, pytest.raises(LeaseLostError):
        train.run(replace(run.context(events), check_lease=lost).at(stage))
    assert not list((root / "iterations/000/train").glob("model-*"))


@long
@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_three_runners_at_one_root_do_each_step_once(trials, root, place):
    check_all_at_once(trials, root(place), 3)
