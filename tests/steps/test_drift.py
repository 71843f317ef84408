"""The drift gate."""

import math

import pytest

from steerlm_core.config import GenerateConfig
from steerlm_core.errors import CaptureError
from steerlm_core.steps.drift import Drift, histogram, judge


def test_the_drift_gate_judges_tokens_and_sequences_and_names_the_worst():
    limits = GenerateConfig(max_drifted_share=0.5)
    one, other = Drift(), Drift()
    one.add("a", 0, [-1.0, -1.0], [-1.0, -1.0])
    other.add("b", 3, [-1.0, -1.0], [-1.02, -1.0])
    assert judge([one.sums(), other.sums()], limits) == pytest.approx(
        {"drift_token": (3 + math.exp(0.02)) / 4, "drift_far_share": 0, "drift_worst": 0.02}
    )
    drifted = histogram([one.sums(), other.sums()])
    bars = dict(zip(drifted["edges"], drifted["counts"], strict=False))  # a count ends at its edge
    assert {edge: count for edge, count in bars.items() if count} == {1e-8: 1, 0.1: 1}
    far = Drift()
    for group, off in (("a", 0.0), ("b", 0.02), ("c", 0.02)):  # 60 tokens, 1.2 nats: little a token, much in all
        far.add(group, 1, [-1.0] * 60, [-1.0 - off] * 60)
    with pytest.raises(CaptureError, match=r"66\.67% of the sequences"):
        judge([far.sums()], limits)
    undefined = Drift()
    for group, scored in (("a", -1.0), ("b", math.nan), ("c", -1.0)):
        undefined.add(group, 0, [-1.0], [scored])
    with pytest.raises(CaptureError, match="worst: group b, candidate 0"):
        judge([one.sums(), undefined.sums()], limits)
