"""What a training run has been through, in a few hundred numbers: it survives checkpoints, and goes into the manifest.

A curve of every step would grow without end, so points are means over `stride` steps; when there are too many,
neighbours are merged and the stride doubles. The same steps give the same history, in one attempt or in several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_MOST_POINTS = 200
_CURVES = ("loss", "distance", "ess", "grad_norm", "learning_rate")


@dataclass
class History:
    """The steps so far.

    Attributes:
        tokens: Tokens of training groups seen, each prompt counted once a group.
        stride: Steps in a point.
        points: Means over whole strides, a row of `_CURVES` each.
        pending: Sums of the steps behind the last point.
        steps: How many those are.
    """

    tokens: int = 0
    stride: int = 1
    points: list[list[float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=lambda: [0.0] * len(_CURVES))
    steps: int = 0

    def add(self, numbers: Mapping[str, float], tokens: int) -> None:
        """Take one step's numbers."""
        self.tokens += tokens
        self.pending = [total + numbers[name] for total, name in zip(self.pending, _CURVES, strict=True)]
        self.steps += 1
        if self.steps == self.stride:
            self.points.append(self._mean())
            self.pending, self.steps = [0.0] * len(_CURVES), 0
        if len(self.points) == 2 * _MOST_POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [[(a + b) / 2 for a, b in zip(first, second, strict=True)] for first, second in pairs]
            self.stride *= 2

    def metrics(self) -> dict[str, Any]:
        """Return what the manifest keeps: `tokens`, and `curve` with its stride and a list for every number."""
        rows = [*self.points, self._mean()] if self.steps else self.points
        columns = {name: [row[place] for row in rows] for place, name in enumerate(_CURVES)}
        return {"tokens": self.tokens, "curve": {"stride": self.stride, **columns}}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: `History(**state)` goes on from there."""
        return asdict(self)

    def _mean(self) -> list[float]:
        return [total / self.steps for total in self.pending]
