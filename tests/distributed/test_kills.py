"""A run that is killed at ten random moments ends with the weights of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from steerlm_core.training.checkpoints import latest
from steerlm_core.training.job import TrainJob
from steerlm_core.training.run import train
from tests.distributed.world import change, make_job, make_policy, token_groups, weights, write_groups

KILLS = 10


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("world")
    policy = make_policy(root / "policy")
    return policy, write_groups(root / "part-0.parquet", policy, token_groups(14))


def _killed(job: TrainJob, processes: int, victims: str, capsys: pytest.CaptureFixture[str]) -> None:
    job.output.parent.mkdir(parents=True)
    path = job.output.parent / "job.json"
    path.write_text(job.to_json())
    seed = str(time.time_ns() % 10_000)
    command = [sys.executable, "-m", "tests.distributed.kills", str(path), str(processes), victims, str(KILLS), seed]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}\n{(done.stdout + done.stderr)[-6000:]}"
    fell = json.loads(done.stdout.splitlines()[-1])["kills_after_step"]
    assert len(fell) == KILLS
    with capsys.disabled():
        print(f"\n{processes} process(es), {victims} killed, seed {seed}: after steps {fell}")


def test_one_process_killed_ends_bitwise_the_same(
    world: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"epochs": 20, "checkpoint_seconds": 1e-6, "schedule": "cosine", "clip_norm": 25.0}
    undisturbed, job = (make_job(tmp_path / name, *world, **settings) for name in ("undisturbed", "killed"))
    train(undisturbed)
    _killed(job, 1, "all", capsys)
    one, other = ((folder / "model.safetensors").read_bytes() for folder in (job.output, undisturbed.output))
    assert one == other


@pytest.mark.parametrize("victims", ["one", "all"])
def test_two_processes_under_zero_3_killed_end_the_same(
    world: tuple[Path, Path], tmp_path: Path, victims: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The survivor of a killed peer ends by itself, and nothing that it leaves behind disturbs the next attempt."""
    settings: dict[str, Any] = {"epochs": 20, "checkpoint_seconds": 1e-6, "learning_rate": 1e-4, "schedule": "cosine"}
    undisturbed = make_job(tmp_path / "undisturbed", *world, **settings)
    train(undisturbed)
    job = make_job(tmp_path / "killed", *world, engine="deepspeed", zero_stage=3, processes=2, **settings)
    _killed(job, 2, victims, capsys)
    found = latest(job.checkpoints, job.digest)
    assert found is not None
    assert found.state["step"] == 80
    assert change(weights(job.output), weights(undisturbed.output), weights(world[0])) < 1e-3
