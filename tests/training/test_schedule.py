"""The learning rate."""

from __future__ import annotations

from typing import Any

import pytest

from steerlm_core.config import TrainConfig
from steerlm_core.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_schedule_warms_up_and_decays(schedule: Any, expected: list[float]) -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=2, schedule=schedule)
    assert [learning_rate(config, step, 6) for step in range(6)] == pytest.approx(expected, abs=1e-4)
