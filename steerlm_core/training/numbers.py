"""The numbers of a training run while it trains: JSON lines, and the caller's report.

All of them are made on rank 0, after each optimizer step, from sums over all ranks.
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

from steerlm_core.training.job import TrainReport

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

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Record the numbers of one step, the first being 1."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "steps": self._steps, "time": time.time(), **numbers}) + "\n")
        if self._report is not None:
            self._report(step, self._steps, numbers)


def speed(tokens: int, seconds: float, flops_per_token: float, world: int) -> dict[str, float]:
    """Return tokens, tokens/s over all ranks, memory of this one, and MFU where the device's peak is known."""
    numbers = {
        "seconds": seconds,
        "tokens": float(tokens),
        "tokens_per_second": tokens / seconds,
        "peak_memory_bytes": _peak_memory(),
    }
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
