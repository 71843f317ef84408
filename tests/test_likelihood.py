"""P(a|x,y) against scipy's distributions, and what a likelihood must fulfil."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, norm

from steerlm_core.errors import ConfigError, LevelError, NonFiniteError
from steerlm_core.likelihood import level_log_probabilities, log_likelihood

NAN = math.nan
kinds = pytest.mark.parametrize("sigma", [None, 0.6])


@given(st.floats(-3, 12), st.integers(-2, 3), st.integers(0, 9), st.none() | st.floats(0.05, 5))
def test_sums_to_one_over_the_levels(predicted: float, low: int, span: int, sigma: float | None) -> None:
    log_p = level_log_probabilities(torch.tensor([predicted]), low, low + span, sigma=sigma)
    assert log_p.shape == (1, span + 1)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert bool(log_p.isfinite().all())


@kinds
@pytest.mark.parametrize("high", [1, 2, 4, 9])
def test_maximal_at_the_predicted_level(high: int, sigma: float | None) -> None:
    log_p = level_log_probabilities(torch.arange(high + 1.0), 0, high, sigma=sigma)
    assert log_p.argmax(-1).tolist() == list(range(high + 1))


@pytest.mark.parametrize("r", [0.05, 0.3, 0.5, 0.81])
def test_beta_is_the_integral_of_the_density(r: float) -> None:
    density = beta(24 * r, 24 - 24 * r)
    edges = [0, 0.125, 0.375, 0.625, 0.875, 1]
    expected = [math.log(quad(density.pdf, a, b, epsabs=0)[0]) for a, b in pairwise(edges)]
    found = level_log_probabilities(torch.tensor([4 * r], dtype=torch.float64), 0, 4)[0]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("predicted", [-0.4, 0.0, 1.3, 2.0, 4.6])
def test_gaussian_is_the_difference_of_cdfs(predicted: float) -> None:
    edges = norm(predicted, 0.6).cdf([-math.inf, 0.5, 1.5, 2.5, 3.5, math.inf])
    found = level_log_probabilities(torch.tensor([predicted], dtype=torch.float64), 0, 4, sigma=0.6)[0]
    assert found.exp().tolist() == pytest.approx((edges[1:] - edges[:-1]).tolist(), abs=1e-14)


@kinds
def test_tails_are_exact_on_both_sides(sigma: float | None) -> None:
    """A difference of CDFs near 1 is rounding; the upper tail must be as good as the lower."""
    predicted = torch.linspace(0, 4, 41, dtype=torch.float64)
    log_p = level_log_probabilities(predicted, 0, 4, sigma=sigma)
    torch.testing.assert_close(log_p, log_p.flip(0, 1), rtol=1e-9, atol=1e-12)
    inside = log_p[1:-1, 4]  # the clamp holds the ends together
    assert bool((inside.diff() > 0).all())


def test_predictions_off_the_range_are_clamped() -> None:
    log_p = level_log_probabilities(torch.tensor([-5.0, 0.0, 4.0, 99.0]), 0, 4)
    assert torch.equal(log_p[0], log_p[1])
    assert torch.equal(log_p[2], log_p[3])


def test_the_floor_keeps_the_log_finite() -> None:
    log_p = level_log_probabilities(torch.tensor([0.0]), 0, 4, sigma=0.05)
    assert log_p[0, 4].item() == pytest.approx(math.log(1e-30))


@pytest.mark.parametrize("kind", ["beta", "gaussian"])
def test_attributes_add_up_and_unnamed_ones_do_not_count(kind: Literal["beta", "gaussian"]) -> None:
    predicted = torch.tensor([[1.2, 0.4], [3.0, NAN], [NAN, 1.0]])
    targets = torch.tensor([[1.0, 0.0], [4.0, NAN], [NAN, 2.0]])
    sigma = [0.6, 0.5] if kind == "gaussian" else [None, None]
    found = log_likelihood(predicted, targets, [0, 0], [4, 2], kind, sigma=[0.6, 0.5])
    first = level_log_probabilities(torch.tensor([1.2, 3.0]), 0, 4, sigma=sigma[0])
    second = level_log_probabilities(torch.tensor([0.4, 1.0]), 0, 2, sigma=sigma[1])
    expected = [first[0, 1] + second[0, 0], first[1, 4], second[1, 2]]
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([float(value) for value in expected], rel=1e-12)


def test_levels_that_do_not_start_at_zero() -> None:
    shifted = log_likelihood(torch.tensor([[3.3]]), torch.tensor([[2.0]]), [1], [5])
    assert shifted.item() == pytest.approx(
        log_likelihood(torch.tensor([[2.3]]), torch.tensor([[1.0]]), [0], [4]).item()
    )


def test_concentration_sharpens() -> None:
    one, target = torch.tensor([[2.0]]), torch.tensor([[2.0]])
    assert log_likelihood(one, target, [0], [4], concentration=99) > log_likelihood(one, target, [0], [4])


@pytest.mark.parametrize("target", [5.0, -1.0, 1.5, math.inf])
def test_a_target_that_is_no_level_is_refused(target: float) -> None:
    with pytest.raises(
        LevelError, match=f"row 1, attribute 0: the target is {target}; it must be an integer from 0 to 4"
    ):
        log_likelihood(torch.ones(2, 1), torch.tensor([[1.0], [target]]), [0], [4])


def test_a_prediction_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="row 0, attribute 0: the attribute model predicts nan"):
        log_likelihood(torch.tensor([[NAN]]), torch.tensor([[1.0]]), [0], [4])


@pytest.mark.parametrize("sigma", [None, [0.0]])
def test_gaussian_needs_a_sigma(sigma: list[float] | None) -> None:
    with pytest.raises(ConfigError, match="needs a positive sigma"):
        log_likelihood(torch.ones(1, 1), torch.ones(1, 1), [0], [4], "gaussian", sigma=sigma)
