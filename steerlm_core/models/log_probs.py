"""Log-probs of the response tokens, straight from the LM head, without ever holding all logits.

1. `forward_log_probs` runs the model with its LM head replaced for one call: hidden states come in, the rows that
   predict a response token are picked, and log-probs [M, K] leave in place of logits [B, T, V]. The head computes
   inside its own module call, so hooks that gather partitioned weights (DeepSpeed ZeRO-3) work as always.
2. Head and log-softmax run in chunks of rows. Hidden rows and a log-sum-exp per row are saved; the backward
   recomputes the logits of a chunk. The exponentials of the first rows are kept, within a fixed number of bytes: small
   vocabularies pay for no recomputation, and memory still does not grow with vocabulary x tokens.
3. A head that is no plain linear layer (LoRA, quantised) runs through its own forward, checkpointed per chunk.
4. On CUDA, with Liger installed, its fused kernel does 2 (`liger_head`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from steerlm_core.errors import ModelError
from steerlm_core.models import liger_head
from steerlm_core.models.distribution import Sampling, filtered_log_probs
from steerlm_core.models.packing import PackedBatch
from steerlm_core.models.prefix_attention import model_arguments

# Logits held at a time, in elements: large enough for full speed of a matrix product at any vocabulary.
_CHUNK_ELEMENTS = 1 << 23
# Exponentials kept for the backward. 128 MiB holds 1,000 tokens at a vocabulary of 32k, 250 at 128k.
_KEEP_BYTES = 128 << 20


def forward_log_probs(
    model: nn.Module,
    batch: PackedBatch,
    temperatures: tuple[float, ...] = (1.0,),
    sampling: Sampling | None = None,
    plain_head: bool = True,
) -> Tensor:
    """Return the log-probs of a batch's response tokens, one column per temperature.

    Args:
        model: A causal language model, or an engine around it.
        batch: The rows, on the model's device.
        temperatures: Temperatures of the columns.
        sampling: Adds a last column: log-probs over the kept set, -inf for a token outside. No gradient.
        plain_head: The LM head's output is the logits. Else the model computes all of them its own way.

    Returns:
        Log-probs in float32 at least, differentiable when gradients are on. [M, K]
    """
    arguments = model_arguments(batch.blocks) if batch.blocks else {"attention_mask": batch.attention_mask}
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False, **arguments}
    if not plain_head:
        logits = model(**inputs).logits.flatten(0, 1).index_select(0, batch.rows)  # [M, V]
        return _columns(logits, batch.targets, temperatures, sampling)
    with _log_prob_head(model, batch, temperatures, sampling):
        log_probs: Tensor = model(**inputs).logits[0]
    return log_probs


def output_head(model: nn.Module) -> nn.Module:
    """Return the LM head of a model, through engines and wrappers around it."""
    while not hasattr(model, "get_output_embeddings"):
        if not isinstance(getattr(model, "module", None), nn.Module):
            raise ModelError(f"{type(model).__name__} has no output embeddings: a causal language model is needed.")
        model = model.module  # type: ignore[assignment]
    head = model.get_output_embeddings()  # type: ignore[operator]
    if not isinstance(head, nn.Module):
        raise ModelError(f"{type(model).__name__} has no LM head: a causal language model is needed.")
    return head


@contextmanager
def _log_prob_head(
    model: nn.Module, batch: PackedBatch, temperatures: tuple[float, ...], sampling: Sampling | None
) -> Iterator[None]:
    head = output_head(model)
    original = head.forward
    patched_before = "forward" in vars(head)

    def log_prob_forward(hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1).index_select(0, batch.rows)  # [M, H]
        if type(head) is nn.Linear and sampling is None:
            log_probs = _linear_head(head, rows, batch.targets, temperatures)
        else:
            log_probs = _through(original, rows, batch.targets, temperatures, sampling, _chunk_rows(head))
        return log_probs[None]  # [1, M, K] in place of [B, T, V]

    head.forward = log_prob_forward
    try:
        yield
    finally:
        if patched_before:
            head.forward = original
        else:
            del head.forward


def _linear_head(head: nn.Linear, rows: Tensor, targets: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    if liger_head.fits(head, rows, temperatures, _plain_log_probs):
        return liger_head.liger_log_probs(rows, head.weight, head.bias, targets)[:, None]
    return token_log_probs(rows, head.weight, head.bias, targets, temperatures)


def _plain_log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    return token_log_probs(hidden, weight, bias, targets)[:, 0]


def token_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperatures: tuple[float, ...] = (1.0,)
) -> Tensor:
    """Return log softmax((hidden @ weight.T + bias) / temperature)[targets], in chunks.

    Args:
        hidden: Hidden rows, one per token. [M, H]
        weight: Weight of the LM head. [V, H]
        bias: Its bias. [V]
        targets: The tokens. [M]
        temperatures: Divide the logits, one column each.

    Returns:
        Log-probs in float32 at least. [M, K]
    """
    needs_grad = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    arguments = (hidden, weight, bias, targets, temperatures, needs_grad)
    log_probs: Tensor = _ChunkedLogProbs.apply(*arguments)  # type: ignore[no-untyped-call]
    return log_probs


class _ChunkedLogProbs(torch.autograd.Function):
    """See 2. in the module docstring. With p = softmax(logits), y the target's one-hot row and g the gradient:

    d hidden = g (y - p) W, d W = (y - p)^T (g hidden). The factor g goes to the small operands, never to p.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperatures: tuple[float, ...],
        needs_grad: bool,
    ) -> Tensor:
        buffers = _Buffers(hidden, weight, keep=needs_grad and temperatures == (1.0,))
        log_probs = []
        for chunk in buffers.chunks:
            logits = buffers.logits(hidden[chunk], weight, bias)  # [m, V]
            chosen = logits.gather(1, targets[chunk, None])[:, 0]
            lses = [_log_sum_exp(logits, t, buffers.probs(chunk)) for t in temperatures]
            log_probs.append(torch.stack([chosen / t - lse for t, lse in zip(temperatures, lses, strict=True)], 1))
        ctx.save_for_backward(hidden, weight, bias, targets, buffers.kept)
        ctx.temperatures = temperatures
        return torch.cat(log_probs)  # [M, K]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, kept = ctx.saved_tensors
        buffers = _Buffers(hidden, weight, kept=kept)
        grads = _HeadGradients(hidden, weight, bias, ctx.needs_input_grad)
        first = slice(0, len(kept))
        if len(kept):
            grads.add(first, targets[first], kept, grad[first, 0])
        for chunk in buffers.chunks[buffers.kept_chunks :]:
            logits = buffers.logits(hidden[chunk], weight, bias)
            for column, t in enumerate(ctx.temperatures):
                probs = _softmax(logits, t, buffers.probs(chunk))
                grads.add(chunk, targets[chunk], probs, grad[chunk, column] / t)
        return *grads.result(), None, None, None


class _Buffers:
    """Buffers of one chunk's logits and probabilities, and the probabilities kept for the backward."""

    def __init__(self, hidden: Tensor, weight: Tensor, keep: bool = False, kept: Tensor | None = None) -> None:
        tokens, vocabulary = len(hidden), len(weight)
        self._dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        rows = max(1, min(tokens, _CHUNK_ELEMENTS // vocabulary))
        self.chunks = [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]
        if kept is None:
            kept_rows = _KEEP_BYTES // (vocabulary * self._dtype.itemsize) // rows * rows if keep else 0
            kept = hidden.new_empty(min(tokens, kept_rows), vocabulary, dtype=self._dtype)
        self.kept = kept  # [rows, V]
        self.kept_chunks = math.ceil(len(kept) / rows)
        self._raw = hidden.new_empty(rows, vocabulary)
        self._probs: Tensor | None = None

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute a chunk's logits into the buffer. [m, V]"""
        logits = torch.mm(hidden, weight.t(), out=self._raw[: len(hidden)])
        if bias is not None:
            logits += bias
        return logits.to(self._dtype)

    def probs(self, chunk: slice) -> Tensor:
        """Return where a chunk's probabilities go: to those kept, or to a buffer. [m, V]"""
        if chunk.stop <= len(self.kept):
            return self.kept[chunk]
        if self._probs is None:
            self._probs = torch.empty_like(self._raw, dtype=self._dtype)
        return self._probs[: chunk.stop - chunk.start]


class _HeadGradients:
    """Sums of the gradients of hidden rows, weight and bias; those that nobody needs stay None."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]) -> None:
        self._rows, self._head = hidden, weight
        self._needed = (needed[0], needed[1], needed[2] and bias is not None)
        self.hidden = torch.zeros_like(hidden) if needed[0] else None
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(self, chunk: slice, targets: Tensor, probs: Tensor, grad: Tensor) -> None:
        """Add what a chunk contributes at one temperature; `grad` is that of its log-probs. [m]"""
        grad, narrow = grad[:, None].to(probs.dtype), probs.to(self._head.dtype)
        if self.hidden is not None:
            self.hidden[chunk] += (self._head[targets] - narrow @ self._head) * grad.to(narrow.dtype)
        if self._needed[1]:
            scaled = (self._rows[chunk] * grad).to(narrow.dtype)  # [m, H]
            self.weight = self._minus_product(narrow, scaled).index_add_(0, targets, scaled.to(probs.dtype))
        if self._needed[2]:
            drop = (probs * grad).sum(0).neg_().index_add_(0, targets, grad[:, 0])
            self.bias = drop if self.bias is None else self.bias + drop

    def _minus_product(self, probs: Tensor, scaled: Tensor) -> Tensor:
        """Return the weight's gradient so far less probs^T scaled, summed in float32 at least. [V, H]"""
        wide = torch.float64 if probs.dtype == torch.float64 else torch.float32
        if self.weight is None:
            return torch.mm(probs.t(), scaled.neg()).to(wide)
        if probs.dtype == wide:
            return self.weight.addmm_(probs.t(), scaled, alpha=-1)
        return self.weight.sub_(torch.mm(probs.t(), scaled))

    def result(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients in the head's own type."""
        narrow = self._head.dtype
        weight, bias = (None if part is None else part.to(narrow) for part in (self.weight, self.bias))
        return self.hidden, weight, bias


def _softmax(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    return torch.softmax(logits if temperature == 1.0 else logits / temperature, 1, out=out)


def _log_sum_exp(logits: Tensor, temperature: float, probs: Tensor) -> Tensor:
    """Return log sum exp(logits / temperature) of each row, leaving softmax in `probs`. [m]

    By way of the fused softmax, at the likeliest token: on the CPU ten times as fast as torch.logsumexp, as exact.
    """
    return logits.amax(1) / temperature - _softmax(logits, temperature, probs).amax(1).log()


def _chunk_rows(head: nn.Module) -> int:
    vocabulary = getattr(head, "out_features", 1 << 17)
    return max(1, _CHUNK_ELEMENTS // int(vocabulary))


def _through(
    forward: Callable[[Tensor], Tensor],
    rows: Tensor,
    targets: Tensor,
    temperatures: tuple[float, ...],
    sampling: Sampling | None,
    chunk: int,
) -> Tensor:
    """Run any head chunk by chunk, recomputed in the backward. [M, K]"""

    def columns(hidden: Tensor, chosen: Tensor) -> Tensor:
        return _columns(forward(hidden), chosen, temperatures, sampling)

    pairs = zip(rows.split(chunk), targets.split(chunk), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([columns(*pair) for pair in pairs])
    return torch.cat([checkpoint(columns, *pair, use_reentrant=False) for pair in pairs])


def _columns(logits: Tensor, targets: Tensor, temperatures: tuple[float, ...], sampling: Sampling | None) -> Tensor:
    """Return the targets' log-probs at each temperature, then under `sampling`. [M, K]"""
    columns = [filtered_log_probs(logits, t).gather(1, targets[:, None]) for t in temperatures]
    if sampling is not None:
        kept = filtered_log_probs(logits.detach(), sampling.temperature, sampling.top_k, sampling.top_p)
        columns.append(kept.gather(1, targets[:, None]))
    return torch.cat(columns, 1)
