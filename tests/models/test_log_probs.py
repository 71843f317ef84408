"""The head: in chunks as in one piece, in little memory, and itself again afterwards."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch import nn

from steerlm_core.models import log_probs
from steerlm_core.models.log_probs import token_log_probs
from steerlm_core.models.scoring import batch_log_probs
from tests.models.small import (
    CONFIGS,
    GROUPS,
    VOCABULARY,
    factors,
    gradient,
    head,
    make,
    naive,
    own_log_probs,
    packed,
    relative,
)


def test_the_head_is_itself_again_even_after_an_error(monkeypatch):
    model = make(CONFIGS["llama"]())
    packed(model)  # what a model can do is found out once: not with this head
    monkeypatch.setattr(log_probs, "token_log_probs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batch_log_probs(model, GROUPS, layout="padded")
    assert "forward" not in vars(model.lm_head)


class AdaptedHead(nn.Linear):
    """A head that is more than its weight, like one with an adapter."""

    def forward(self, hidden):
        return super().forward(hidden) + hidden.mean(-1, keepdim=True).sin() * torch.linspace(0, 1, VOCABULARY)


def test_a_head_that_is_more_than_its_weight_runs_its_own_forward(monkeypatch):
    monkeypatch.setattr(log_probs, "_CHUNK_ELEMENTS", 7 * VOCABULARY)
    model = make(CONFIGS["llama"]())
    model.lm_head.__class__ = AdaptedHead
    expected = own_log_probs(model, GROUPS)
    expected_gradient = gradient(model, (expected * factors(GROUPS)).sum())
    scored = batch_log_probs(model, GROUPS, layout=packed(model)).log_probs
    torch.testing.assert_close(scored, expected, rtol=1e-5, atol=3e-6)
    assert relative(gradient(model, (scored * factors(GROUPS)).sum()), expected_gradient) < 1e-6


@pytest.mark.parametrize("kept", [0, 14 * 211 * 8, 1 << 20])
@pytest.mark.parametrize("temperatures", [(1.0,), (0.6,), (1.0, 0.7)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_chunked_head_equals_the_naive_one(monkeypatch, temperatures, with_bias, kept):
    monkeypatch.setattr(log_probs, "_CHUNK_ELEMENTS", 7 * 211)
    monkeypatch.setattr(log_probs, "_KEEP_BYTES", kept)
    rows, weight, bias, targets = head()
    leaves = [rows, weight, *([bias] if with_bias else [])]
    arguments = (rows, weight, bias if with_bias else None, targets, temperatures)
    expected, found = naive(*arguments), token_log_probs(*arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    direction = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, leaves, direction)
    for again in (True, False):  # the graph may be used twice
        for one, other in zip(
            torch.autograd.grad(found, leaves, direction, retain_graph=again), expected_gradients, strict=True
        ):
            assert relative(one, other) < 1e-13


def test_the_chunked_head_survives_improbable_tokens_and_low_precision():
    rows, weight, _, targets = head(dtype=torch.float32, scale=100.0)
    found = token_log_probs(rows, weight, None, targets)
    assert float(found.detach().min()) < -500
    torch.testing.assert_close(found, naive(rows, weight, None, targets, (1.0,)), rtol=1e-6, atol=1e-4)
    rows, weight, _, targets = head(dtype=torch.bfloat16)
    found = token_log_probs(rows, weight, None, targets)
    assert found.dtype == torch.float32
    found.sum().backward()
    wide = [part.detach().double().requires_grad_() for part in (rows, weight)]
    naive(*wide, None, targets, (1.0,)).sum().backward()
    assert relative(rows.grad.double(), wide[0].grad) < 0.01
    assert relative(weight.grad.double(), wide[1].grad) < 0.01


def test_frozen_weights_cost_no_gradient():
    rows, weight, bias, targets = (part.detach() for part in head())
    gradients = log_probs._HeadGradients(rows, weight, bias, (True, False, False))
    probs = (rows @ weight.T).softmax(-1)
    gradients.add(slice(0, len(rows)), targets, probs, torch.ones(len(rows)))
    hidden, *frozen = gradients.result()
    assert hidden is not None
    assert frozen == [None, None]


def peak_bytes(step):
    """The most memory that torch held at a time during a step, above what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes))


def head_peak(way, tokens, vocabulary):
    torch.manual_seed(0)
    hidden = torch.randn(2 * tokens, 16, requires_grad=True)
    weight = torch.randn(vocabulary, 16, requires_grad=True)
    targets = torch.randint(vocabulary, (2 * tokens,))
    return peak_bytes(lambda: way(hidden, weight, targets).sum().backward())


def naive_over_everything(hidden, weight, targets):
    masked = torch.arange(len(hidden)) % 2 == 0
    return naive(hidden, weight, None, targets, (1.0,)).masked_fill(masked[:, None], 0)


def chunked_over_the_rest(hidden, weight, targets):
    return token_log_probs(hidden[1::2], weight, None, targets[1::2])


def test_memory_does_not_grow_with_vocabulary_times_tokens(monkeypatch):
    monkeypatch.setattr(log_probs, "_CHUNK_ELEMENTS", 1 << 18)
    monkeypatch.setattr(log_probs, "_KEEP_BYTES", 1 << 20)
    small, large = (head_peak(chunked_over_the_rest, tokens, 8000) for tokens in (256, 1024))
    assert large - small < 2 * 4 * 768 * 200  # rows of hidden size 16 and a few columns, not of 8,000
    assert large < 0.25 * head_peak(naive_over_everything, 256, 8000)
