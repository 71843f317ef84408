"""The SteerLM v2 objective: importance weights, loss, distance and diagnostics. Pure maths, no I/O.

A group is one prompt, one target and N responses; every tensor is `[G, N]`, every term is a sum of
log-probabilities over response tokens, in nats. The way through the module:

1. `target_log_weights`: log ws = log_softmax(log_p_attr + log_p_prior - log_q), fixed during training.
2. `baseline_log_weights`: log b = log_softmax(log_p - log_q), changes with the model.
3. `steerlm_loss`: the soft-target cross-entropy between them; one forward of whole groups, dropout off.
4. `two_pass_weights`, `two_pass_loss`: the same gradient for groups too large for one graph.
5. `distance` and the diagnostics, for held-out groups and for people.

Rows are independent, so a batch may be cut between groups, never inside one: a softmax over part of
a group is another objective. Masked slots may hold anything, NaN included; they come back as -inf.
All is computed in float32 at least, in float64 where any input is float64.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from steerlm_core.errors import DataError, NonFiniteError

# Far above the rounding of a float32 softmax, far below what one response of another mask would add.
_WEIGHT_SUM_TOLERANCE = 1e-3
_NEMO_EPSILON = 1e-8


def target_log_weights(log_p_attr: Tensor, log_p_prior: Tensor, log_q: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return log ws, `[G, N]`: importance weights of the target, P(a|x,y) P(y|x) over Q; -inf where not valid.

    HelpSteer2 (arXiv 2406.08673, section 4.5); NeMo-Aligner `SteerLM2Dataset`.

    Args:
        log_p_attr: log P(a|x,y), `[G, N]`; -inf gives weight 0.
        log_p_prior: log P(y|x), `[G, N]`; -inf gives weight 0.
        log_q: Log-probability under the distribution sampled from, `[G, N]`.
        valid: Which responses count, bool `[G, N]`; all by default.

    Raises:
        DataError: A row has no valid response.
        NonFiniteError: A valid term is NaN or infinite, or a row is -inf throughout.
    """
    valid = _mask(valid, log_q)
    attr, prior, start = _promote(log_p_attr, log_p_prior, log_q)
    attr = _checked("log_p_attr", attr, valid, minus_inf=True)
    prior = _checked("log_p_prior", prior, valid, minus_inf=True)
    return _log_softmax("log_p_attr + log_p_prior - log_q", attr + prior - _checked("log_q", start, valid), valid)


def baseline_log_weights(log_p: Tensor, log_q: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return log b, `[G, N]`: importance weights of the model itself, differentiable; -inf where not valid.

    Args:
        log_p: log Q_theta(y|a,x) = -NLL, `[G, N]`.
        log_q: Log-probability under the distribution sampled from, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, log_p)
    now, start = _promote(log_p, log_q)
    return _log_softmax("log_p - log_q", _checked("log_p", now, valid) - _checked("log_q", start, valid), valid)


def steerlm_loss(
    log_p: Tensor,
    log_q: Tensor,
    log_ws: Tensor,
    response_tokens: Tensor,
    valid: Tensor | None = None,
    num_groups: int | None = None,
) -> Tensor:
    """Return the loss: per group the cross-entropy of b under ws over the mean response length, averaged.

    With s = log_p - log_q, the gradient of -sum_i ws_i log_softmax(s)_i is sum_i (ws_i - b_i) grad NLL_i:
    that of NeMo-Aligner's two passes (`gpt_steerlm_model.py`), from one. The scalar differs from NeMo's.

    Args:
        log_p: log Q_theta(y|a,x), `[G, N]`, with the whole group's graph.
        log_q: Log-probability under the distribution sampled from, `[G, N]`.
        log_ws: From `target_log_weights` with the same `valid`, `[G, N]`.
        response_tokens: Number of valid response tokens, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
        num_groups: Groups in the global batch after drops, over all micro-batches and ranks; G by default.

    Returns:
        Scalar. Losses of micro-batches and ranks, each over the same `num_groups`, add up to the batch's.
    """
    valid = _mask(valid, log_p)
    log_p, log_q, log_ws = _promote(log_p, log_q, log_ws.detach())
    ws = _log_weights("log_ws", log_ws, valid).exp()
    loss = -_expectation(ws, baseline_log_weights(log_p, log_q, valid))  # [G]
    _all_finite("loss", loss)
    return _batch_mean(loss, mean_response_tokens(response_tokens, valid), num_groups)


def two_pass_weights(log_p: Tensor, log_q: Tensor, log_ws: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return w = ws - b, `[G, N]`, 0 where not valid, without gradient: what the first of two passes computes.

    Args:
        log_p: log Q_theta(y|a,x) of the whole group, `[G, N]`, from a forward without gradient.
        log_q: Log-probability under the distribution sampled from, `[G, N]`.
        log_ws: From `target_log_weights` with the same `valid`, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, log_p)
    log_p, log_q, log_ws = _promote(log_p.detach(), log_q.detach(), log_ws.detach())
    return _log_weights("log_ws", log_ws, valid).exp() - baseline_log_weights(log_p, log_q, valid).exp()


def two_pass_loss(log_p: Tensor, weights: Tensor, mean_tokens: Tensor, num_groups: int) -> Tensor:
    """Return the surrogate loss of part of a group's responses: sum_i w_i NLL_i over the mean length.

    Summed over the parts of a group its gradient is exactly that of `steerlm_loss`; its value is not.

    Args:
        log_p: log Q_theta(y|a,x) of the part, `[G, part]`, with gradient.
        weights: The part's slice of `two_pass_weights`, `[G, part]`.
        mean_tokens: `mean_response_tokens` of the whole group, `[G]`.
        num_groups: Groups in the global batch after drops.
    """
    log_p, weights = _promote(log_p, weights)
    nll = -torch.where(weights != 0, log_p, 0.0)  # masked slots have weight 0 and may hold NaN
    _all_finite("log_p", nll.sum(-1))
    return _batch_mean((weights * nll).sum(-1), mean_tokens, num_groups)


def mean_response_tokens(response_tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean number of valid response tokens over the valid responses, `[G]`, float64.

    Args:
        response_tokens: Number of valid response tokens, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, response_tokens)
    tokens = _checked("response_tokens", response_tokens.double(), valid)
    mean = tokens.sum(-1) / valid.sum(-1)
    if bool((mean <= 0).any()):
        raise DataError(f"row {_first(mean <= 0)}: the valid responses have no tokens; drop such a group first.")
    return mean


def distance(log_ws: Tensor, log_b: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return KL(ws || b) of every group, `[G]`, in nats; at most log N where b is uniform.

    Args:
        log_ws: Target log weights, `[G, N]`.
        log_b: Baseline log weights, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.

    Raises:
        NonFiniteError: The model gives no weight to a response that the target gives some.
    """
    valid = _mask(valid, log_ws)
    log_ws, log_b = _promote(log_ws, log_b)
    log_ws, log_b = _log_weights("log_ws", log_ws, valid), _log_weights("log_b", log_b, valid)
    ws = log_ws.exp()
    kl = _expectation(ws, log_ws) - _expectation(ws, log_b)
    _all_finite("distance", kl)
    return kl.clamp_min(0.0)  # equal weights may round to just below 0


def reference_distance(log_ws: Tensor, log_b: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return NeMo-Aligner's distance, 1e-8 added to both weights, `[G]`: for comparison with its logs only.

    Args:
        log_ws: Target log weights, `[G, N]`.
        log_b: Baseline log weights, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, log_ws)
    log_ws, log_b = _promote(log_ws, log_b)
    ws = _log_weights("log_ws", log_ws, valid).exp() + _NEMO_EPSILON
    return (ws * (ws / (_log_weights("log_b", log_b, valid).exp() + _NEMO_EPSILON)).log()).sum(-1)


def effective_sample_size(log_ws: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return 1 / sum ws^2, `[G]`: 1 when one response has all the weight, N when all have the same.

    Args:
        log_ws: Target log weights, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, log_ws)
    return (-torch.logsumexp(2 * _log_weights("log_ws", _promote(log_ws)[0], valid), dim=-1)).exp()


def entropy(log_weights: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the entropy of the weights, `[G]`, in nats.

    Args:
        log_weights: Log weights, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, log_weights)
    log_weights = _log_weights("log_weights", _promote(log_weights)[0], valid)
    return -_expectation(log_weights.exp(), log_weights)


def spread(term: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the standard deviation of one term over each group, `[G]`, in nats; inf where a value is infinite.

    Args:
        term: One of log_p_attr, log_p_prior, log_q, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, term)
    values = torch.where(valid, term.double(), 0.0)
    mean = values.sum(-1, keepdim=True) / valid.sum(-1, keepdim=True)
    variance = torch.where(valid, values - mean, 0.0).square().sum(-1) / valid.sum(-1)
    return torch.where(values.isinf().any(-1), torch.inf, variance.sqrt())


def retained_mass(log_p: Tensor, log_q: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean of exp(log_p - log_q) over each group, `[G]`, float64: near 1 for a sound model.

    The group softmax does not see a common shift of log_p; this does, since E_mu[Q_theta / mu] = 1.

    Args:
        log_p: log Q_theta(y|a,x), `[G, N]`.
        log_q: Log-probability under the distribution sampled from, `[G, N]`.
        valid: Which responses count, bool `[G, N]`.
    """
    valid = _mask(valid, log_p)
    ratio = _checked("log_p", log_p.double(), valid) - _checked("log_q", log_q.double(), valid)
    return torch.where(valid, ratio.exp(), 0.0).sum(-1) / valid.sum(-1)


def _promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _mask(valid: Tensor | None, like: Tensor) -> Tensor:
    assert like.ndim == 2, f"expected [G, N], found {tuple(like.shape)}"
    if valid is None:
        valid = torch.ones_like(like, dtype=torch.bool)
    assert valid.shape == like.shape, f"valid is {tuple(valid.shape)}, the terms are {tuple(like.shape)}"
    assert valid.dtype == torch.bool, f"valid is {valid.dtype}"
    empty = ~valid.any(-1)
    if bool(empty.any()):
        raise DataError(f"row {_first(empty)}: the group has no valid response; drop it before weighing.")
    return valid


def _checked(name: str, term: Tensor, valid: Tensor, *, minus_inf: bool = False) -> Tensor:
    """Return `term` with 0 in masked slots, so that what they hold reaches neither value nor gradient."""
    assert term.shape == valid.shape, f"{name} is {tuple(term.shape)}, valid is {tuple(valid.shape)}"
    term = torch.where(valid, term, 0.0)
    bad = ~term.isfinite() & ~(term.isneginf() & minus_inf)
    if bool(bad.any()):
        row, column = bad.nonzero()[0].tolist()
        raise NonFiniteError(f"row {row}, response {column}: {name} is {term[row, column].item()}; it must be finite.")
    return term


def _log_softmax(name: str, score: Tensor, valid: Tensor) -> Tensor:
    score = _checked(name, score, valid, minus_inf=True)  # a difference of finite terms may still overflow
    score = score.masked_fill(~valid, -torch.inf)
    nothing = score.isneginf().all(-1)
    if bool(nothing.any()):
        raise NonFiniteError(f"row {_first(nothing)}: {name} is -inf for every valid response, so no weights exist.")
    return score.log_softmax(-1)


def _log_weights(name: str, log_weights: Tensor, valid: Tensor) -> Tensor:
    """Return log weights with -inf in masked slots, or raise where they were made with another mask."""
    log_weights = _checked(name, log_weights, valid, minus_inf=True).masked_fill(~valid, -torch.inf)
    total = log_weights.exp().sum(-1)
    wrong = (total - 1).abs() > _WEIGHT_SUM_TOLERANCE
    if bool(wrong.any()):
        raise DataError(
            f"row {_first(wrong)}: {name} sums to {total[_first(wrong)].item():.4g} over the valid responses, not 1; "
            "it was made for other responses. Weigh whole groups with the mask that is used here."
        )
    return log_weights


def _expectation(weights: Tensor, values: Tensor) -> Tensor:
    return (weights * torch.where(weights > 0, values, 0.0)).sum(-1)  # 0 log 0 = 0


def _batch_mean(loss: Tensor, mean_tokens: Tensor, num_groups: int | None) -> Tensor:
    groups = len(loss) if num_groups is None else num_groups
    assert groups > 0, f"num_groups is {groups}"
    return (loss / mean_tokens.to(loss.dtype)).sum() / groups


def _all_finite(name: str, values: Tensor) -> None:
    bad = ~values.isfinite()
    if bool(bad.any()):
        raise NonFiniteError(f"row {_first(bad)}: the {name} is {values[_first(bad)].item()}; it must be finite.")


def _first(flags: Tensor) -> int:
    return int(flags.nonzero()[0].item())
