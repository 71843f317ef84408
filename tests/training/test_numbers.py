"""The numbers of a step."""

from __future__ import annotations

import pytest

from steerlm_core.training import numbers


def test_mfu_counts_what_the_method_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mfu" not in numbers.speed(tokens=100, seconds=2.0, flops_per_token=600.0, world=1)
    monkeypatch.setattr(numbers, "_peak_flops", lambda: 1e5)
    full, lora = numbers.flops_per_token(100, 100), numbers.flops_per_token(110, 10)
    assert (full, lora) == (600.0, 460.0)  # forward 2, gradient of activations 2, of trained weights 2
    found = numbers.speed(tokens=100, seconds=2.0, flops_per_token=full, world=3)
    assert found["mfu"] == pytest.approx(0.1)
    assert found["tokens_per_second"] == 50.0
