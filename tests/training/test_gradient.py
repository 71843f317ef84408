"""The gradient: one, however it is summed up."""

from __future__ import annotations

from pathlib import Path

import torch

from steerlm_core.training import gradient
from steerlm_core.training.data import load_groups
from steerlm_core.training.engines import SingleEngine
from steerlm_core.training.job import TrainJob
from steerlm_core.training.plan import plan_step
from steerlm_core.training.policy import load_policy
from tests.distributed.world import make_job


def _gradient(job: TrainJob, count: int = 14) -> torch.Tensor:
    groups, _ = load_groups(job.groups)
    batch = groups[:count]
    tokens = [group.tokens for group in batch]
    policy = load_policy(job, tokens)
    engine = SingleEngine(policy, job.config)
    plan = plan_step(tokens, 1, job.config.token_budget, policy.layout)[0]
    gradient.accumulate(engine, batch, plan)
    return torch.cat([weight.grad.flatten() for weight in policy.trained().values() if weight.grad is not None])


def test_gradient_is_the_same_in_one_pass_two_passes_and_micro_batches(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    whole = _gradient(make_job(tmp_path, *world, dtype="float64", token_budget=100_000))
    tokens = [group.tokens for group in load_groups((world[1],))[0]]
    assert plan_step(tokens, 1, 64, "shared_prefix")[0].parts, "the budget of 64 must cut groups"
    for settings in ({"token_budget": 64}, {"token_budget": 128}, {"token_budget": 64, "layout": "padded"}):
        other = _gradient(make_job(tmp_path, *world, dtype="float64", **settings))
        assert float((other - whole).norm() / whole.norm()) < 1e-7, settings  # its norm layers compute in float32


def test_activation_checkpointing_leaves_the_gradient_and_dropout_off(world: tuple[Path, Path], tmp_path: Path) -> None:
    """The policy's configuration asks for attention dropout 0.1; recomputation needs the training mode."""
    plain = _gradient(make_job(tmp_path, *world, dtype="float64"))
    recomputed = _gradient(make_job(tmp_path, *world, dtype="float64", activation_checkpointing=True))
    assert float((recomputed - plain).norm() / plain.norm()) < 1e-12
