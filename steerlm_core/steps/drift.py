"""The sampler drift gate: the sampler's log-probs against the re-scored ones.

Fails when `mean exp|Δ|` per token, or the share of sequences with `|ΣΔ| > log 3`, is above its
limit (method.md, "Two gates"), and names the worst sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from steerlm_core.config import GenerateConfig
from steerlm_core.errors import CaptureError

_FAR = math.log(3.0)
_LARGEST = 700.0  # exp of more would overflow


class DriftGate:
    """Collects differences, sequence by sequence; `check` raises when they are too large."""

    def __init__(self, limits: GenerateConfig) -> None:
        """Take the limits from the generation section."""
        self._limits = limits
        self._tokens, self._sum, self._sequences, self._far = 0, 0.0, 0, 0
        self._worst: tuple[float, str] = (0.0, "none")

    def add(self, group_id: str, index: int, sampled: Sequence[float], scored: Sequence[float]) -> None:
        """Compare one candidate's token log-probs, both `[T]`."""
        differences = [a - b for a, b in zip(sampled, scored, strict=True)]
        self._tokens += len(differences)
        self._sum += sum(math.exp(min(abs(d), _LARGEST)) for d in differences)
        self._sequences += 1
        whole = abs(sum(differences))
        whole = math.inf if math.isnan(whole) else whole
        self._far += whole > _FAR
        if whole > self._worst[0]:
            self._worst = (whole, f"group {group_id}, candidate {index}")

    def numbers(self) -> dict[str, float]:
        """The two measures, and the largest difference of a whole sequence, in nats."""
        return {
            "drift_token": self._sum / max(self._tokens, 1),
            "drift_far_share": self._far / max(self._sequences, 1),
            "drift_worst": self._worst[0],
        }

    def check(self) -> None:
        """Judge what was collected.

        Raises:
            CaptureError: The sampler is not the model that was scored.
        """
        numbers, limits = self.numbers(), self._limits
        if numbers["drift_token"] <= limits.max_token_drift and numbers["drift_far_share"] <= limits.max_drifted_share:
            return
        raise CaptureError(
            "generate: the sampler's log-probs differ from the re-scored log_q: mean exp|Δ| per token "
            f"{numbers['drift_token']:.4f} (limit {limits.max_token_drift}), {numbers['drift_far_share']:.2%} of "
            f"the sequences are off by more than log 3 (limit {limits.max_drifted_share:.2%}); worst: {self._worst[1]} "
            f"with {self._worst[0]:.3f} nats. Sample and score with the same weights and dtype, or raise the limits in "
            "`generate`."
        )
