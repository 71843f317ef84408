"""A job as a file."""

from __future__ import annotations

from pathlib import Path

from steerlm_core.training.job import TrainJob
from tests.distributed.world import make_job


def test_job_survives_its_json(world: tuple[Path, Path], tmp_path: Path) -> None:
    job = make_job(tmp_path, *world, lora={"rank": 3}, betas=(0.8, 0.9), dtype="bfloat16")
    assert TrainJob.from_json(job.to_json()) == job
