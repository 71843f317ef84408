"""The objective against the reference's two passes, written out plainly, and its properties."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from steerlm_core import objective
from steerlm_core.errors import DataError, NonFiniteError
from steerlm_core.objective import (
    baseline_log_weights,
    distance,
    effective_sample_size,
    mean_response_tokens,
    reference_distance,
    steerlm_loss,
    target_log_weights,
    two_pass_loss,
    two_pass_weights,
)

GROUPS, SIZE, LENGTH, VOCABULARY = 6, 8, 12, 11
terms = arrays(np.float64, (3, 5), elements=st.floats(-1e3, 1e3)).map(torch.from_numpy)
masks = arrays(np.bool_, (3, 5)).map(torch.from_numpy).filter(lambda mask: bool(mask.any(-1).all()))
parity = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])


class Bigram:
    """A batch of groups and a bigram model: the smallest thing with token log-probs and shared parameters."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        start = torch.randn(VOCABULARY, VOCABULARY, generator=draw, dtype=torch.float64)
        self.ids = torch.randint(VOCABULARY, (GROUPS, SIZE, LENGTH + 1), generator=draw)
        self.tokens = torch.randint(2, LENGTH + 1, (GROUPS, SIZE), generator=draw)
        self.valid = torch.rand(GROUPS, SIZE, generator=draw) > 0.2
        self.log_q = self.log_p(start).to(dtype)
        noise = torch.randn(2, GROUPS, SIZE, generator=draw, dtype=torch.float64).to(dtype)
        self.log_ws = target_log_weights(noise[0], self.log_q + noise[1], self.log_q, self.valid)
        step = 0.1 * torch.randn(VOCABULARY, VOCABULARY, generator=draw, dtype=torch.float64)
        self.theta = (start + step).to(dtype).requires_grad_()

    def log_p(self, theta: Tensor) -> Tensor:
        each = theta.log_softmax(-1)[self.ids[..., :-1], self.ids[..., 1:]]  # [G, N, T]
        return (each * (torch.arange(LENGTH) < self.tokens[..., None])).sum(-1)

    def loss(self, rows: slice = slice(None), num_groups: int | None = None) -> Tensor:
        log_p = self.log_p(self.theta)[rows]
        return steerlm_loss(log_p, self.log_q[rows], self.log_ws[rows], self.tokens[rows], self.valid[rows], num_groups)

    def gradient(self, loss: Callable[[], Tensor]) -> Tensor:
        return torch.autograd.grad(loss(), self.theta)[0]


def reference_loss(batch: Bigram) -> Tensor:
    """The two passes of the reference, group by group and without the library."""
    total = torch.zeros((), dtype=batch.theta.dtype)
    for g in range(GROUPS):
        keep = batch.valid[g]
        with torch.no_grad():
            ratio = batch.log_p(batch.theta)[g][keep] - batch.log_q[g][keep]
            b = torch.exp(ratio - ratio.max())
            w = batch.log_ws[g][keep].exp() - b / b.sum()
        nll = -batch.log_p(batch.theta)[g][keep]
        total = total + (w * nll).sum() / batch.tokens[g][keep].to(w.dtype).mean()
    return total / GROUPS


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@parity
@pytest.mark.parametrize("seed", range(5))
def test_one_pass_has_the_gradient_of_the_reference(dtype: torch.dtype, tolerance: float, seed: int) -> None:
    batch = Bigram(dtype, seed)
    expected = batch.gradient(lambda: reference_loss(batch))
    assert relative_error(batch.gradient(batch.loss), expected) < tolerance


@parity
def test_two_pass_over_parts_has_the_same_gradient(dtype: torch.dtype, tolerance: float) -> None:
    batch = Bigram(dtype)
    weights = two_pass_weights(batch.log_p(batch.theta), batch.log_q, batch.log_ws, batch.valid)
    mean = mean_response_tokens(batch.tokens, batch.valid)

    def in_parts() -> Tensor:
        log_p = batch.log_p(batch.theta).masked_fill(~batch.valid, torch.nan)
        parts = zip(log_p.split(3, dim=1), weights.split(3, dim=1), strict=True)
        return torch.stack([two_pass_loss(part, w, mean, GROUPS) for part, w in parts]).sum()

    assert not weights.requires_grad
    assert relative_error(batch.gradient(in_parts), batch.gradient(batch.loss)) < tolerance


@pytest.mark.parametrize("size", [1, 2, 4])
def test_cutting_the_batch_between_groups_changes_nothing(size: int) -> None:
    batch = Bigram(torch.float64)
    cuts = [slice(i, i + size) for i in range(0, GROUPS, size)]
    parts = [batch.loss(cut, GROUPS) for cut in cuts]
    assert torch.stack(parts).sum().item() == pytest.approx(batch.loss().item(), rel=1e-13)
    summed = sum(batch.gradient(lambda cut=cut: batch.loss(cut, GROUPS)) for cut in cuts)  # type: ignore[misc]
    assert relative_error(torch.as_tensor(summed), batch.gradient(batch.loss)) < 1e-13


def test_a_softmax_over_part_of_a_group_is_wrong() -> None:
    batch = Bigram(torch.float64)
    batch.valid[:] = True
    batch.log_ws = target_log_weights(batch.log_ws, torch.zeros_like(batch.log_ws), torch.zeros_like(batch.log_ws))
    halves = [slice(0, SIZE // 2), slice(SIZE // 2, SIZE)]

    def cut_inside() -> Tensor:
        log_p = batch.log_p(batch.theta)
        pieces = [
            (log_p[:, h], batch.log_q[:, h], batch.log_ws[:, h].log_softmax(-1), batch.tokens[:, h]) for h in halves
        ]
        return torch.stack([steerlm_loss(*piece) / len(halves) for piece in pieces]).sum()

    assert relative_error(batch.gradient(cut_inside), batch.gradient(batch.loss)) > 0.3
    half = halves[0]
    with pytest.raises(DataError, match=r"row 0: log_ws sums to 0\.\d+ over the valid responses"):
        steerlm_loss(
            batch.log_p(batch.theta)[:, half], batch.log_q[:, half], batch.log_ws[:, half], batch.tokens[:, half]
        )


def test_target_weights_by_hand() -> None:
    attr, prior, log_q = torch.tensor([[[-1.0, -2.0]], [[-7.0, -5.0]], [[-6.0, -5.5]]])
    odds = math.exp((-1 - 7 + 6) - (-2 - 5 + 5.5))
    assert target_log_weights(attr, prior, log_q).exp()[0, 0].item() == pytest.approx(odds / (1 + odds), rel=1e-6)


def test_step_0_oracle() -> None:
    batch = Bigram(torch.float64)
    log_b = baseline_log_weights(batch.log_q, batch.log_q, batch.valid)
    count = batch.valid.sum(-1)
    expected = count.log() - objective.entropy(batch.log_ws, batch.valid)
    torch.testing.assert_close(log_b[batch.valid], -count[:, None].log().double().expand(-1, SIZE)[batch.valid])
    torch.testing.assert_close(distance(batch.log_ws, log_b, batch.valid), expected)


def test_at_the_target_the_gradient_vanishes() -> None:
    log_ws = target_log_weights(*torch.randn(3, 2, 4, dtype=torch.float64))
    log_q = torch.randn(2, 4, dtype=torch.float64)
    log_p = (log_ws + log_q - 3.0).requires_grad_()
    steerlm_loss(log_p, log_q, log_ws, torch.ones(2, 4)).backward()
    assert log_p.grad is not None
    assert log_p.grad.abs().max() < 1e-15


@given(terms, terms, terms, masks)
def test_weights_sum_to_one_over_the_valid(attr: Tensor, prior: Tensor, log_q: Tensor, valid: Tensor) -> None:
    for log_w in (target_log_weights(attr, prior, log_q, valid), baseline_log_weights(attr, log_q, valid)):
        torch.testing.assert_close(log_w.exp().sum(-1), torch.ones(3, dtype=torch.float64))
        assert bool((log_w[~valid] == -torch.inf).all())


@given(terms, terms, terms, st.integers(0, 2), st.floats(-1e3, 1e3))
def test_shifting_a_term_of_a_group_changes_no_weight(
    attr: Tensor, prior: Tensor, log_q: Tensor, which: int, shift: float
) -> None:
    shifted = [attr, prior, log_q]
    shifted[which] = shifted[which] + shift * torch.tensor([[1.0], [-0.5], [0.0]])
    torch.testing.assert_close(
        target_log_weights(*shifted).exp(), target_log_weights(attr, prior, log_q).exp(), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(
        baseline_log_weights(attr + shift, log_q).exp(), baseline_log_weights(attr, log_q).exp(), rtol=1e-9, atol=1e-12
    )


@given(terms, terms, masks)
def test_distance_is_a_divergence(first: Tensor, second: Tensor, valid: Tensor) -> None:
    log_ws, log_b = first.masked_fill(~valid, -torch.inf).log_softmax(-1), second.masked_fill(~valid, -torch.inf)
    log_b = log_b.log_softmax(-1)
    found = distance(log_ws, log_b, valid)
    variation = (log_ws.exp() - log_b.exp()).abs().sum(-1) / 2
    assert bool((found >= 2 * variation**2 - 1e-12).all())  # Pinsker: only equal weights are at distance 0
    assert bool((distance(log_ws, log_ws, valid) == 0).all())
    assert bool((effective_sample_size(log_ws, valid) <= valid.sum(-1).double() + 1e-9).all())


@given(terms, terms, terms, masks, st.sampled_from([math.nan, math.inf, -math.inf, 1e300]))
def test_masked_responses_never_matter(attr: Tensor, prior: Tensor, log_q: Tensor, valid: Tensor, junk: float) -> None:
    tokens = torch.arange(1.0, 16.0, dtype=torch.float64).view(3, 5)

    def everything(fill: float) -> list[Tensor]:
        a, p, q, t = (term.masked_fill(~valid, fill) for term in (attr, prior, log_q, tokens))
        log_ws, log_p = target_log_weights(a, p, q, valid), p.clone().requires_grad_()
        log_b = baseline_log_weights(log_p, q, valid)
        loss = steerlm_loss(log_p, q, log_ws.masked_fill(~valid, fill), t, valid)
        gradient = torch.autograd.grad(loss, log_p)[0]
        assert bool((gradient[~valid] == 0).all())
        w = two_pass_weights(log_p, q, log_ws, valid)
        assert bool((w[~valid] == 0).all())
        groupwise = [distance(log_ws, log_b, valid), effective_sample_size(log_ws, valid), objective.spread(a, valid)]
        groupwise += [objective.entropy(log_ws, valid), objective.retained_mass(p, q, valid)]
        return [log_ws, log_b, loss, gradient, w, mean_response_tokens(t, valid), *groupwise]

    for found, expected in zip(everything(junk), everything(0.0), strict=True):
        assert torch.equal(found, expected)


@settings(max_examples=200)
@given(
    arrays(
        np.float32, (2, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False) | st.just(-math.inf)
    ).map(torch.from_numpy),
    arrays(np.float32, (2, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)).map(
        torch.from_numpy
    ),
)
def test_infinite_terms_and_huge_spreads_are_finite_or_refused(attr: Tensor, log_p: Tensor) -> None:
    log_p.requires_grad_()
    zero = torch.zeros(2, 4)
    if bool(attr.isneginf().all(-1).any()):
        with pytest.raises(NonFiniteError, match=r"row [01]: log_p_attr .* is -inf for every valid response"):
            target_log_weights(attr, zero, zero)
        return
    log_ws = target_log_weights(attr, zero, zero)
    with contextlib.suppress(NonFiniteError):  # the loss itself may be beyond float32
        loss = steerlm_loss(log_p, zero, log_ws, zero + 3)
        assert bool(loss.isfinite())
        assert bool(torch.autograd.grad(loss, log_p)[0].isfinite().all())
    spread = torch.tensor([[1e30, -1e30, 0.0, 1.0]] * 2, requires_grad=True)
    loss = steerlm_loss(spread, zero, log_ws, zero + 3)
    assert bool(torch.autograd.grad(loss, spread)[0].isfinite().all())


def test_minus_inf_attribute_likelihood_is_weight_zero() -> None:
    attr = torch.tensor([[0.0, -torch.inf, 0.0]])
    log_ws = target_log_weights(attr, torch.zeros(1, 3), torch.zeros(1, 3))
    torch.testing.assert_close(log_ws.exp(), torch.tensor([[0.5, 0.0, 0.5]]))
    log_p = torch.tensor([[-1.0, -900.0, -2.0]], requires_grad=True)
    steerlm_loss(log_p, torch.zeros(1, 3), log_ws, torch.ones(1, 3)).backward()
    assert log_p.grad is not None
    assert bool(log_p.grad.isfinite().all())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("log_p_attr", math.nan, "row 1, response 2: log_p_attr is nan"),
        ("log_p_prior", math.inf, "row 1, response 2: log_p_prior is inf"),
        ("log_q", -math.inf, "row 1, response 2: log_q is -inf"),
    ],
)
def test_a_bad_term_is_named(place: str, value: float, message: str) -> None:
    given_terms = {name: torch.zeros(2, 3) for name in ("log_p_attr", "log_p_prior", "log_q")}
    given_terms[place][1, 2] = value
    with pytest.raises(NonFiniteError, match=message):
        target_log_weights(**given_terms)


def test_groups_without_weights_are_refused() -> None:
    zero, nothing = torch.zeros(2, 3), torch.tensor([[0.0] * 3, [-math.inf] * 3])
    with pytest.raises(NonFiniteError, match=r"row 1: log_p_attr .* is -inf for every valid response"):
        target_log_weights(nothing, zero, zero)
    with pytest.raises(NonFiniteError, match="row 1, response 0: log_p is -inf"):
        baseline_log_weights(nothing, zero)
    with pytest.raises(NonFiniteError, match="row 0, response 0: log_p - log_q is inf"):
        baseline_log_weights(zero + 3e38, zero - 3e38)
    with pytest.raises(NonFiniteError, match="row 0: the distance is inf"):
        distance(zero.log_softmax(-1), torch.tensor([[0.0, -math.inf, -math.inf]] * 2))
    with pytest.raises(DataError, match="row 1: the group has no valid response"):
        baseline_log_weights(zero, zero, torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(DataError, match="row 0: the valid responses have no tokens"):
        mean_response_tokens(zero)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2]
)
def test_at_least_float32(dtype: torch.dtype, expected: torch.dtype) -> None:
    term = torch.zeros(2, 3, dtype=dtype)
    log_b = baseline_log_weights(term, term)
    assert log_b.dtype == expected
    assert target_log_weights(term, term, term).dtype == expected
    assert steerlm_loss(term, term, log_b, torch.ones(2, 3, dtype=torch.int32)).dtype == expected
    assert distance(log_b, log_b).dtype == expected


def test_loss_is_over_the_groups_of_the_global_batch() -> None:
    batch = Bigram(torch.float64)
    assert batch.loss(num_groups=4 * GROUPS).item() == pytest.approx(batch.loss().item() / 4)


def test_mean_length_counts_valid_responses_only() -> None:
    valid = torch.tensor([[True, True, False]])
    assert mean_response_tokens(torch.tensor([[2, 5, 100]]), valid).item() == 3.5


def test_diagnostics_by_hand() -> None:
    log_ws, log_b = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    assert effective_sample_size(log_ws).item() == pytest.approx(1 / 0.375)
    assert objective.entropy(log_ws).item() == pytest.approx(1.5 * math.log(2))
    assert distance(log_ws, log_b).item() == pytest.approx(0.25 * math.log(2))
    nemo = sum((p + 1e-8) * math.log((p + 1e-8) / (b + 1e-8)) for p, b in [(0.5, 0.25), (0.25, 0.25), (0.25, 0.5)])
    assert reference_distance(log_ws, log_b).item() == pytest.approx(nemo, rel=1e-6)
    assert objective.spread(torch.tensor([[1.0, 5.0], [2.0, -math.inf]])).tolist() == [2.0, math.inf]
    ratio, valid = torch.tensor([[0.5, 1.7, 9.0]]).log(), torch.tensor([[True, True, False]])
    assert objective.retained_mass(ratio - 4, torch.full((1, 3), -4.0), valid).item() == pytest.approx(1.1)


def test_reference_distance_keeps_the_epsilon() -> None:
    log_ws, log_b = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log()
    assert reference_distance(log_ws, log_b).item() == pytest.approx(math.log(1e8), rel=1e-5)
