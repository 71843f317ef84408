"""The sampler drift gate: the sampler's log-probs against the re-scored ones, collected part by part.

Fails when `mean exp|Δ|` per token, or the share of sequences with `|ΣΔ| > log 3`, is above its
limit (method.md, "Two gates"), and names the worst sequence.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from steerlm_core.config import GenerateConfig
from steerlm_core.errors import CaptureError

_FAR = math.log(3.0)
_LARGEST = 700.0  # exp of more would overflow
# Edges of the histogram, in nats: rounding stands far left, another model far right.
_EDGES = tuple(10.0**power for power in range(-8, 2))


class Drift:
    """Collects the differences of a part, sequence by sequence."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._tokens, self._sum, self._sequences, self._far = 0, 0.0, 0, 0
        self._worst: tuple[float, str] = (0.0, "none")
        self._counts = [0] * (len(_EDGES) + 1)

    def add(self, group_id: str, index: int, sampled: Sequence[float], scored: Sequence[float]) -> None:
        """Compare one candidate's token log-probs, both `[T]`."""
        differences = [a - b for a, b in zip(sampled, scored, strict=True)]
        self._tokens += len(differences)
        self._sum += sum(math.exp(min(abs(d), _LARGEST)) for d in differences)
        self._sequences += 1
        whole = abs(sum(differences))
        whole = math.inf if math.isnan(whole) else whole
        self._far += whole > _FAR
        self._counts[bisect_right(_EDGES, whole)] += 1
        if whole > self._worst[0]:
            self._worst = (whole, f"group {group_id}, candidate {index}")

    def sums(self) -> dict[str, Any]:
        """What `judge` needs of this part."""
        return {
            "tokens": self._tokens,
            "token_drift": self._sum,
            "sequences": self._sequences,
            "far": self._far,
            "worst": self._worst[0],
            "worst_at": self._worst[1],
            "histogram": self._counts,
        }


def judge(parts: Sequence[Mapping[str, Any]], limits: GenerateConfig) -> dict[str, float]:
    """Return the two measures, and the largest difference of a whole sequence, in nats.

    Args:
        parts: The sums of all parts.
        limits: The generation section.

    Raises:
        CaptureError: The sampler is not the model that was scored.
    """

    def total(name: str) -> float:
        return float(sum(part[name] for part in parts))

    worst = max(parts, key=lambda part: float(part["worst"]))
    token, far = total("token_drift") / max(total("tokens"), 1), total("far") / max(total("sequences"), 1)
    if not (token <= limits.max_token_drift and far <= limits.max_drifted_share):  # NaN is no small drift
        raise CaptureError(
            "generate: the sampler's log-probs differ from the re-scored log_q: mean exp|Δ| per token "
            f"{token:.4f} (limit {limits.max_token_drift}), {far:.2%} of the sequences are off by more than log 3 "
            f"(limit {limits.max_drifted_share:.2%}); worst: {worst['worst_at']} with {worst['worst']:.3f} nats. "
            "Sample and score with the same weights and dtype, or raise the limits in `generate`."
        )
    return {"drift_token": token, "drift_far_share": far, "drift_worst": float(worst["worst"])}


def histogram(parts: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return how many sequences have which `|ΣΔ|`, in nats: below the first edge, between the edges, above the last.

    Args:
        parts: The sums of all parts.
    """
    counts = [float(sum(column)) for column in zip(*(part["histogram"] for part in parts), strict=True)]
    return {"edges": list(_EDGES), "counts": counts}
