"""Training in one process: it learns, says so, and stops where numbers are none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from steerlm_core.errors import NonFiniteError
from steerlm_core.training.data import BatchOrder, load_groups
from steerlm_core.training.run import train
from tests.distributed.world import make_job


def test_training_lowers_the_loss_and_says_so_everywhere(world: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int, dict[str, float]]] = []
    job = make_job(tmp_path, *world, epochs=8, learning_rate=3e-5, batch_groups=7)
    result = train(job, report=lambda step, steps, found: seen.append((step, steps, dict(found))))
    assert result.steps == 16
    assert [step for step, _, _ in seen] == list(range(1, 17))
    assert result.metrics["distance"] < 0.6 * (seen[0][2]["distance"] + seen[1][2]["distance"]) / 2
    assert result.metrics["groups"] == 14
    wanted = {
        "loss",
        "distance",
        "ess",
        "grad_norm",
        "learning_rate",
        "seconds",
        "tokens_per_second",
        "peak_memory_bytes",
    }
    assert wanted <= seen[-1][2].keys()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert lines[-1]["loss"] == seen[-1][2]["loss"]
    tokens = sum(group.tokens.packed_tokens for group in load_groups(job.groups)[0])
    assert sum(line["tokens"] for line in lines) == result.metrics["tokens"] == 8 * tokens
    plain = [value for value in result.metrics.values() if isinstance(value, int | float)]
    assert len(plain) > 5
    assert not any(math.isnan(value) for value in plain)


def test_non_finite_loss_names_step_and_groups(world: tuple[Path, Path], tmp_path: Path) -> None:
    job = make_job(tmp_path, *world, optimizer="sgd", learning_rate=1e30, clip_norm=0.0)
    second = [load_groups(job.groups)[0][index].group_id for index in BatchOrder(14, 4, 1, job.seed).batch(1)]
    with pytest.raises(NonFiniteError, match=f"step 2, batch of groups {', '.join(second)}: the loss of group"):
        train(job)
    assert not job.output.exists()
