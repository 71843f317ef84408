"""Many processes: what starts them, and that they train to the same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from steerlm_core.errors import ConfigError
from steerlm_core.training.launch import run_torchrun, torchrun_command, torchrun_environment
from steerlm_core.training.run import train
from tests.distributed.world import change, make_job, weights


def test_launch_does_what_the_environment_asks(world: tuple[Path, Path], tmp_path: Path) -> None:
    many, single = (make_job(tmp_path, *world, engine=engine, processes=4) for engine in ("deepspeed", "single"))
    child = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "PET_NNODES": "2"}
    pod = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}
    assert torchrun_command(child, many, ["job"]) is None
    assert torchrun_command({}, single, ["job"]) is None
    tail = ["-m", "steerlm_core.training.launch", "job"]
    start = [sys.executable, "-m", "torch.distributed.run"]
    assert torchrun_command(pod, many, ["job"]) == start + tail
    assert torchrun_command({}, many, ["job"]) == [*start, "--standalone", "--nproc-per-node", "4", *tail]
    with pytest.raises(ConfigError, match="PET_NNODES=2"):
        torchrun_command(pod, single, ["job"])
    kept = torchrun_environment(pod, "/extensions")
    assert kept == {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "8",
        "PET_NODE_RANK": "1",
        "TORCH_EXTENSIONS_DIR": "/extensions",
    }


@pytest.mark.long
def test_two_processes_under_zero_3_train_to_the_same_weights(world: tuple[Path, Path], tmp_path: Path) -> None:
    """Uneven groups, two passes, gradient clipping, numbers and result of the child; no compiled extension."""
    alone = make_job(tmp_path / "alone", *world, clip_norm=25.0)
    train(alone)
    job = make_job(
        tmp_path / "many", *world, clip_norm=25.0, token_budget=64, engine="deepspeed", zero_stage=3, processes=2
    )
    steps: list[int] = []
    result = run_torchrun(job, report=lambda step, total, found: steps.append(step))
    assert steps == [1, 2, 3, 4]
    assert result.steps == 4
    assert result.metrics["groups"] == 14
    assert change(weights(job.output), weights(alone.output), weights(world[0])) < 1e-3
    assert "shm_comm" not in (tmp_path / "many" / "torchrun.log").read_text()
