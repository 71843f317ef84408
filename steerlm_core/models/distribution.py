"""The distribution that is sampled from: temperature, top-k, top-p, as log-probs over the vocabulary.

The sampler draws from these log-probs and the scorer reads them off, so both mean the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Truncation applies to the tempered distribution: first top-k, then top-p."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def filtered_log_probs(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return the log-probs of the distribution sampled from, renormalised over the kept tokens.

    Args:
        logits: Raw logits. [..., V]
        temperature: Divides the logits.
        top_k: Keep the k likeliest tokens, and those that tie with the last of them; 0 is off.
        top_p: Keep the likeliest tokens until their mass reaches this; 1 is off. One is always kept.

    Returns:
        Log-probs in float32 at least, -inf for tokens left out. [..., V]
    """
    log_probs = _log_softmax(logits, temperature)
    if 0 < top_k < logits.shape[-1]:
        smallest = log_probs.topk(top_k, dim=-1).values[..., -1:]  # [..., 1]
        log_probs = log_probs.masked_fill(log_probs < smallest, -torch.inf).log_softmax(-1)
    if top_p < 1.0:
        log_probs = _nucleus(log_probs, top_p)
    return log_probs


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return (wide if temperature == 1.0 else wide / temperature).log_softmax(-1)


def _nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    ordered, order = log_probs.sort(dim=-1, descending=True, stable=True)
    mass_before = ordered.exp().cumsum(-1) - ordered.exp()  # [..., V]
    left_out = torch.zeros_like(log_probs, dtype=torch.bool).scatter(-1, order, mass_before >= top_p)
    left_out.scatter_(-1, order[..., :1], False)
    return log_probs.masked_fill(left_out, -torch.inf).log_softmax(-1)
