"""The numbers of a training run while it trains: JSON lines, Prometheus metrics, the caller's report.

All of them are made on rank 0, after each optimizer step, from sums over all ranks. Prometheus
metrics stand in the default registry of the process that trains.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from prometheus_client import Counter, Gauge, Histogram

from steerlm_core.training.job import TrainReport

_SECONDS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_STEP_SECONDS = Histogram("steerlm_train_step_duration_seconds", "Duration of an optimizer step.", buckets=_SECONDS)
_TOKENS = Counter("steerlm_train_tokens_total", "Tokens of training groups, each prompt counted once a group.")
_LOSS = Gauge("steerlm_train_loss", "Loss of the last global batch.")
_DISTANCE = Gauge("steerlm_distance", "Distance KL(ws || b) of the last global batch, in nats.")
_ESS = Gauge("steerlm_effective_sample_size", "Mean effective sample size of the last global batch.")
_CHECKPOINT_SECONDS = Histogram(
    "steerlm_checkpoint_duration_seconds", "Duration of writing a checkpoint.", buckets=_SECONDS
)
_LAST_CHECKPOINT = Gauge("steerlm_last_checkpoint_timestamp_seconds", "When the last checkpoint was complete.")

# Dense peak of the matrix units in bf16, FLOP/s, by a part of the device's name (vendors' data sheets).
_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "L4": 121e12}


class Recorder:
    """Writes the numbers of each step to wherever they are wanted; does nothing on other ranks."""

    def __init__(self, path: Path, done: int, steps: int, report: TrainReport | None) -> None:
        """Continue the file at `path` after step `done`; what a lost attempt wrote behind it is dropped."""
        self._path, self._steps, self._report = path, steps, report
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if done and path.exists() else []
        path.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= done))

    def __call__(self, step: int, numbers: Mapping[str, float], tokens: int) -> None:
        """Record the numbers of one step, the first being 1."""
        _STEP_SECONDS.observe(numbers["seconds"])
        _TOKENS.inc(tokens)
        _LOSS.set(numbers["loss"])
        _DISTANCE.set(numbers["distance"])
        _ESS.set(numbers["ess"])
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "steps": self._steps, "time": time.time(), **numbers}) + "\n")
        if self._report is not None:
            self._report(step, self._steps, numbers)


def record_checkpoint(seconds: float) -> None:
    """Record that a checkpoint has been written."""
    _CHECKPOINT_SECONDS.observe(seconds)
    _LAST_CHECKPOINT.set_to_current_time()


def speed(tokens: int, seconds: float, flops_per_token: float, world: int) -> dict[str, float]:
    """Return tokens/s over all ranks, memory of this one, and MFU where the device's peak is known."""
    numbers = {"seconds": seconds, "tokens_per_second": tokens / seconds, "peak_memory_bytes": _peak_memory()}
    peak = _peak_flops()
    if peak is not None:
        numbers["mfu"] = tokens * flops_per_token / (seconds * peak * world)
    return numbers


def flops_per_token(parameters: int, trained: int) -> float:
    """Return the FLOPs that the method needs for a token: forward, gradient of activations, gradient of weights.

    Attention scores and recomputed activations are left out, so MFU is a lower bound.
    """
    return 4.0 * parameters + 2.0 * trained


def _peak_memory() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _peak_flops() -> float | None:
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for part, flops in _PEAK_FLOPS.items() if part in name), None)


def _step_of(line: str) -> float:
    """Return the step of a line, or infinity where it was cut off in the writing."""
    try:
        value: Any = json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")
    return float(value)
