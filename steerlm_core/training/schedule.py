"""The learning rate as a function of the step alone, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from steerlm_core.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate of update `step` of `steps`, counted from 0: linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    gone = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)  # in [0, 1)
    shape = {"constant": 1.0, "linear": 1.0 - gone, "cosine": 0.5 * (1.0 + math.cos(math.pi * gone))}
    return config.learning_rate * shape[config.schedule]
