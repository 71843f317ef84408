"""Jobs under a real torchrun: errors, deaths and SIGTERM as the waiting process sees them."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from steerlm_core.errors import CaptureError, SteerLMError
from steerlm_core.training.checkpoints import latest
from steerlm_core.training.job import TrainingStoppedError
from steerlm_core.training.launch import run_torchrun
from tests.distributed.world import VOCABULARY, make_job, make_policy, token_groups, write_groups

ALWAYS = 1e-6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("world")
    policy = make_policy(root / "policy")
    return policy, write_groups(root / "part-0.parquet", policy, token_groups(14))


def test_error_of_a_rank_comes_back_as_it_is(world: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_policy(tmp_path / "other", seed=9)
    with pytest.raises(CaptureError, match="Worst: group g0"):
        run_torchrun(make_job(tmp_path, other, world[1], engine="deepspeed", processes=2, zero_stage=2))


def test_killed_rank_ends_the_run_with_a_clear_error_and_the_next_run_goes_on(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = {"engine": "deepspeed", "processes": 2, "epochs": 30, "checkpoint_seconds": ALWAYS}
    job = make_job(tmp_path, *world, **settings)

    def kill_a_rank(step: int, steps: int, numbers: Mapping[str, float]) -> None:
        if step == 3:
            ranks = [one for one in psutil.Process().children(recursive=True) if "launch" in one.cmdline()[-4]]
            ranks[-1].kill()

    with pytest.raises(SteerLMError, match=r"Run again: it continues[\s\S]*last lines"):
        run_torchrun(job, report=kill_a_rank)
    found = latest(job.checkpoints, job.digest)
    assert found is not None
    assert found.state["step"] >= 2
    steps: list[int] = []
    assert run_torchrun(job, report=lambda step, total, numbers: steps.append(step)).steps == 120
    assert steps == list(range(found.state["step"] + 1, 121))
    assert not [one for one in psutil.Process().children(recursive=True) if "python" in one.name() and one.cmdline()]


def test_sigterm_leaves_a_loadable_checkpoint_within_a_few_steps_on_a_model_of_the_demos_size(tmp_path: Path) -> None:
    policy = make_policy(tmp_path / "policy")
    config = LlamaConfig(
        hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=VOCABULARY, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    assert 400_000 < model.num_parameters() < 600_000
    model.save_pretrained(policy)
    part = write_groups(tmp_path / "part-0.parquet", policy, token_groups(64, fixed=True))
    job = make_job(tmp_path, policy, part, engine="deepspeed", processes=2, epochs=50, batch_groups=16)

    def stop(step: int, steps: int, numbers: Mapping[str, float]) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStoppedError, match="stopped by SIGTERM after step"):
        run_torchrun(job, report=stop)
    found = latest(job.checkpoints, job.digest)
    assert found is not None
    assert found.state["step"] <= 3 + 10
