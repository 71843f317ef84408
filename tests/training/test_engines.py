"""The engine of one process."""

from __future__ import annotations

from pathlib import Path

import torch

from steerlm_core.training.data import load_groups
from steerlm_core.training.engines import SingleEngine
from steerlm_core.training.policy import load_policy
from tests.distributed.world import make_job


def test_bfloat16_updates_add_up_in_float32_masters(world: tuple[Path, Path], tmp_path: Path) -> None:
    """Updates of 1e-6 vanish in bfloat16 weights of 0.05; in the masters they add up."""
    job = make_job(tmp_path, *world, dtype="bfloat16", learning_rate=1e-6, epochs=1)
    groups = [group.tokens for group in load_groups(job.groups)[0]]
    policy = load_policy(job, groups)
    engine = SingleEngine(policy, job.config)
    masters = {name: tensor.clone() for name, tensor in engine.state() if name.startswith("weight/")}
    for _ in range(3):
        engine.backward(sum(weight.sum() for weight in policy.trained().values()), last=True)  # type: ignore[arg-type]
        engine.step(1e-6)
    for name, tensor in engine.state():
        if name.startswith("weight/"):
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(masters[name] - tensor, torch.full_like(tensor, 3e-6), atol=3e-7, rtol=0)
