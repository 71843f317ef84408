"""Which short cuts give a model's own log-probs: tried on a tiny random input, not looked up.

Two questions, each answered by comparing with the model's own logits of plain rows: may groups share a row
(`shared_prefix`), and are logits what leaves the LM head (`plain_head`), or scaled and capped behind it? Besides, every
layer must have used our attention; else the model mixes tokens in another way (recurrent layers, one of its own).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlm_core.models import prefix_attention
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.log_probs import forward_log_probs
from steerlm_core.models.packing import RowLayout, pack

# Largest difference between log-probs that are equal but for rounding, in nats.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}


@dataclass(frozen=True)
class Capability:
    """What holds for a model.

    Attributes:
        shared_prefix: Log-probs of shared-prefix rows equal those of plain rows.
        reason: Why not, as a clause; empty where they do.
        plain_head: The LM head's output is the logits.
    """

    shared_prefix: bool
    reason: str
    plain_head: bool


_known: dict[str, Capability] = {}  # by class and configuration
_settled: WeakKeyDictionary[nn.Module, Capability] = WeakKeyDictionary()  # by model, for speed


def supports_shared_prefix(model: nn.Module) -> tuple[bool, str]:
    """Return whether the shared-prefix layout is exact for a model, and why not."""
    capability = capability_of(model)
    return capability.shared_prefix, capability.reason


def capability_of(model: nn.Module) -> Capability:
    """Return what holds for a model, or an engine around it; tried once per class and configuration.

    A model that supports shared prefixes has our attention enabled afterwards; for all other calls that is SDPA.
    """
    inner = causal_lm(model)
    if inner not in _settled:
        settings = json.dumps(inner.config.to_dict(), default=str)
        key = f"{type(inner).__qualname__} {inner.dtype} {inner.device.type} {settings}"
        if key not in _known:
            with _evaluating(inner), torch.no_grad():
                _known[key] = _probe(model, inner)
        if _known[key].shared_prefix:
            prefix_attention.enable(inner)
        _settled[inner] = _known[key]
    return _settled[inner]


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside engines (`.module`) and adapters (`.get_base_model()`)."""
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        inner = inner.get_base_model() if hasattr(type(inner), "get_base_model") else inner.module
    return inner


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _probe(model: nn.Module, inner: PreTrainedModel) -> Capability:
    groups = _random_groups(inner)
    expected = _scores(model, inner, groups, "padded", plain_head=False)
    plain_head = _agrees(lambda: _scores(model, inner, groups, "padded", plain_head=True), expected, inner.dtype) == ""
    original = inner.config._attn_implementation
    reason = _agrees(lambda: _packed_scores(model, inner, groups, plain_head), expected, inner.dtype)
    if reason:
        inner.set_attn_implementation(original)
    return Capability(not reason, reason and f"{type(inner).__name__} cannot share a row: {reason}", plain_head)


def _random_groups(inner: PreTrainedModel) -> list[TokenGroup]:
    """Two groups of ragged responses; a leak between any two of them changes a log-prob."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(inner.config.get_text_config().vocab_size)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())

    return [TokenGroup(ids(5), (ids(6), ids(1), ids(4))), TokenGroup(ids(3), (ids(2), ids(5)))]


def _scores(
    model: nn.Module, inner: PreTrainedModel, groups: list[TokenGroup], layout: RowLayout, plain_head: bool
) -> Tensor:
    return forward_log_probs(model, pack(groups, layout).to(inner.device), plain_head=plain_head)


def _packed_scores(model: nn.Module, inner: PreTrainedModel, groups: list[TokenGroup], plain_head: bool) -> Tensor:
    prefix_attention.enable(inner)
    with prefix_attention.visited_layers() as visited:
        scores = _scores(model, inner, groups, "shared_prefix", plain_head)
    layers = inner.config.get_text_config().num_hidden_layers
    if len(visited) != layers:
        raise prefix_attention.UnsupportedAttentionError(f"{layers - len(visited)} of {layers} layers do not attend")
    return scores


def _agrees(score: Callable[[], Tensor], expected: Tensor, dtype: torch.dtype) -> str:
    """Return what speaks against these scores of a model of type `dtype`, or an empty string."""
    try:
        error = float((score() - expected).abs().max())
    except Exception as trouble:  # any model may fail in any way on rows it was not written for
        return f"{trouble}" or type(trouble).__name__
    tolerance = _TOLERANCE.get(dtype, 0.25)
    return "" if error <= tolerance else f"log-probs differ by {error:.2g} nats"
