"""The gates at the start of training: what was sampled is what the policy says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from steerlm_core.config import GenerateConfig
from steerlm_core.errors import CaptureError
from steerlm_core.training.data import load_groups
from steerlm_core.training.run import train
from tests.distributed.world import make_job
from tests.training.groups import shift, tampered


def test_oracle_names_the_group_whose_log_p_start_is_not_the_policys(world: tuple[Path, Path], tmp_path: Path) -> None:
    part = tampered(world[1], tmp_path / "part.parquet", "g008", shift("log_q", "log_p_start", by=2.0))
    last = len(next(group for group in load_groups((part,))[0] if group.group_id == "g008").log_q) - 1
    with pytest.raises(CaptureError, match=rf"group g008, valid candidate {last}: stored") as caught:
        train(make_job(tmp_path, world[0], part))
    assert not (tmp_path / "model").exists()
    assert "log 3" in str(caught.value)


def test_oracle_refuses_small_drift_that_plain_sampling_cannot_have(world: tuple[Path, Path], tmp_path: Path) -> None:
    """0.2 nats of one candidate pass the two gates, but then b is not 1/N."""
    part = tampered(world[1], tmp_path / "part.parquet", "g008", shift("log_q", "log_p_start", by=0.2))
    with pytest.raises(CaptureError, match=r"group g008: the distance is .* off log N - H\(ws\)"):
        train(make_job(tmp_path, world[0], part))


def test_oracle_refuses_a_log_q_that_is_not_log_p_start_at_temperature_one(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    part = tampered(world[1], tmp_path / "part.parquet", "g008", shift("log_q", by=0.01))
    with pytest.raises(CaptureError, match="plain sampling stores one number twice"):
        train(make_job(tmp_path, world[0], part))
    job = make_job(tmp_path, world[0], part)
    train(replace(job, generate=GenerateConfig(temperature=0.9)))  # there they are two numbers


def test_oracle_reports_the_largest_drift(world: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = train(make_job(tmp_path, *world, token_budget=64)).metrics
    assert 0 < metrics["oracle_max_drift"] < 1e-4
    assert metrics["oracle_token_drift"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["oracle_distance_error"] < 1e-4
