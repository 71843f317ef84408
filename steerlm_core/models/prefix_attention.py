"""Attention for shared-prefix rows: every response sees its prompt and itself, and nothing else.

1. `enable(model)` makes this module the model's attention function (transformers' AttentionInterface). Without
   `blocks` among the arguments of the forward it is plain SDPA, so sampling and padded rows do not notice.
2. On the CPU the work is done block by block, never over the whole row: causal attention within the prompts, causal
   attention within the responses, full attention from responses to their prompt; the last two are merged by their
   log-sum-exp. The backward runs the same kernels with the merged result, which is exact.
3. On CUDA FlexAttention runs with a block mask of the same structure. It has not been tested on a GPU.
4. Elsewhere SDPA runs with the dense mask, which is also what the tests compare the others with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from steerlm_core.errors import ModelError
from steerlm_core.models.packing import Blocks, Part

NAME = "steerlm_shared_prefix"

# Arguments by which a model asks its attention for something that the blocks do not express.
_UNSUPPORTED = ("sliding_window", "softcap", "s_aux", "position_bias", "cache")


_visited: set[nn.Module] | None = None


class UnsupportedAttentionError(ModelError):
    """The model's attention does more than the shared-prefix layout can reproduce."""


def enable(model: PreTrainedModel) -> None:
    """Make shared-prefix attention the model's attention function; harmless when it is already."""
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)


def model_arguments(blocks: Blocks) -> dict[str, Any]:
    """Return what a forward of a shared-prefix row needs besides ids and positions.

    The mask is a placeholder: transformers hands a 4D mask through as it is, and builds none of its own.
    """
    return {"blocks": blocks, "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=blocks.slots.device)}


@contextmanager
def visited_layers() -> Iterator[set[nn.Module]]:
    """Collect the modules that attend by blocks meanwhile."""
    global _visited
    _visited = set()
    try:
        yield _visited
    finally:
        _visited = None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    blocks: Blocks | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks, by `blocks` in a shared-prefix row: [1, heads, T, D] -> [1, T, heads, D].

    The signature is transformers' own; `key` and `value` may have fewer heads. Weights are never returned.
    """
    if blocks is None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return attended
    _refuse(dropout, kwargs)
    if _visited is not None:
        _visited.add(module)
    key, value = (_repeat_heads(states, query.shape[1]) for states in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type == "cuda":
        return _flex(query, key, value, blocks, scale).transpose(1, 2).contiguous(), None
    if query.device.type == "cpu":
        rows = [states[0].transpose(0, 1) for states in (query, key, value)]  # [T, heads, D]
        return _BlockAttention.apply(*rows, blocks, scale)[None], None  # type: ignore[no-untyped-call]
    return dense_attention(query, key, value, blocks, scale), None


def dense_attention(query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """The reference: SDPA over the whole row with the dense mask. [1, heads, T, D] -> [1, T, heads, D]"""
    mask = blocks.dense_mask()
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return attended.transpose(1, 2).contiguous()


def _refuse(dropout: float, kwargs: dict[str, Any]) -> None:
    if dropout > 0:
        raise UnsupportedAttentionError(
            f"attention dropout is {dropout}: log-probs would be random. Set it to 0, or call model.eval()."
        )
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise UnsupportedAttentionError(f"its attention uses {name}={kwargs[name]!r:.40}")


def _repeat_heads(states: Tensor, heads: int) -> Tensor:
    return states if states.shape[1] == heads else states.repeat_interleave(heads // states.shape[1], dim=1)


class _BlockAttention(torch.autograd.Function):
    """Block-structured attention on the CPU: [T, heads, D] -> [T, heads, D]. Saves no scores.

    The kernel's backward recomputes probabilities as exp(scores - logsumexp). Given the output and the log-sum-exp
    over *all* keys, it yields the exact gradient of the block of keys it is called with, so the blocks add up.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float) -> Tensor:
        outs, lses = [], []
        for part in blocks.parts:
            prompt = [_take(states, part.prompts) for states in (query, key, value)]  # [G, P, heads, D]
            response = [_take(states, part.responses) for states in (query, key, value)]  # [G, N, R, heads, D]
            for out, lse in (_flash(*prompt, scale=scale, causal=True), _attend(prompt, response, part, scale)):
                outs.append(out.flatten(0, 1))
                lses.append(lse)
        out = torch.cat(outs).index_select(0, blocks.slots)
        ctx.save_for_backward(query, key, value, out, *lses)
        ctx.blocks, ctx.scale = blocks, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        rows, lses = saved[:4], iter(saved[4:])  # query, key, value, out
        joined: list[list[Tensor]] = [[], [], []]  # of query, key, value
        for part in ctx.blocks.parts:
            prompt = [_take(states, part.prompts) for states in rows]
            response = [_take(states, part.responses) for states in rows]
            given = _take(grad, part.prompts, part.prompt_valid)
            of_prompt = _flash_backward(given, prompt, next(lses), scale=ctx.scale, causal=True)
            given = _take(grad, part.responses, part.response_valid)
            of_response, of_keys = _attend_backward(given, prompt, response, next(lses), part, ctx.scale)
            of_prompt = [of_prompt[0], of_prompt[1] + of_keys[0], of_prompt[2] + of_keys[1]]
            for state, pair in zip(joined, zip(of_prompt, of_response, strict=True), strict=True):
                state.extend(one.flatten(0, 1) for one in pair)
        return *(torch.cat(state).index_select(0, ctx.blocks.slots) for state in joined), None, None


def _attend(prompt: list[Tensor], response: list[Tensor], part: Part, scale: float) -> tuple[Tensor, Tensor]:
    """Attend from responses to themselves and to their prompt. Returns [G, N * R, heads, D] and its log-sum-exp."""
    query = response[0].flatten(1, 2)  # [G, N * R, heads, D]
    if not query.numel():
        return query, query.new_empty(query.shape[:-1])
    own, own_lse = _flash(*(states.flatten(0, 1) for states in response), scale=scale, causal=True)
    back, back_lse = _flash(query, *prompt[1:], scale=scale, mask=_key_mask(part, query))
    return _merge(own.view_as(back), own_lse.view_as(back_lse), back, back_lse)


def _attend_backward(
    given: Tensor, prompt: list[Tensor], response: list[Tensor], lse: Tensor, part: Part, scale: float
) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """Return the gradients of the responses' states [G, N * R, heads, D], and of their prompt's key and value."""
    query, out, grad = (states.flatten(1, 2) for states in (response[0], response[3], given))
    if not query.numel():
        return [query, query, query], (torch.zeros_like(prompt[1]), torch.zeros_like(prompt[2]))
    flat = [states.flatten(0, 1) for states in response]
    own = _flash_backward(given.flatten(0, 1), flat, lse.reshape(flat[0].shape[:-1]), scale=scale, causal=True)
    back = _flash_backward(grad, [query, *prompt[1:3], out], lse, scale=scale, mask=_key_mask(part, query))
    of_query, of_key, of_value = (one.reshape(query.shape) for one in own)
    return [of_query + back[0], of_key, of_value], (back[1], back[2])


def _take(rows: Tensor, index: Tensor, valid: Tensor | None = None) -> Tensor:
    """Gather tokens of the row into a block; zero where not `valid`. [T, heads, D] -> [*index, heads, D]"""
    block = rows.index_select(0, index.flatten()).view(*index.shape, *rows.shape[1:])
    return block if valid is None else block.masked_fill_(~valid[..., None, None], 0)


def _key_mask(part: Part, like: Tensor) -> Tensor | None:
    """Return -inf for padding among the prompts' keys. [G, 1, 1, P]"""
    if part.prompt_valid is None:
        return None
    zeros = like.new_zeros(part.prompt_valid.shape)
    return zeros.masked_fill(~part.prompt_valid, -torch.inf)[:, None, None]


def _flash(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend; all [B, S, heads, D]. Returns the output and its log-sum-exp [B, S, heads]."""
    states = (part.transpose(1, 2) for part in (query, key, value))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *states, 0.0, causal, attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2), lse.transpose(1, 2).contiguous()


def _flash_backward(
    grad: Tensor, given: list[Tensor], lse: Tensor, *, scale: float, causal: bool = False, mask: Tensor | None = None
) -> list[Tensor]:
    """Return the gradients of query, key and value; `given` are those and the output, all as in `_flash`."""
    states = [part.transpose(1, 2) for part in (grad, *given, lse)]
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *states, 0.0, causal, attn_mask=mask, scale=scale
    )
    return [part.transpose(1, 2) for part in grads]


def _merge(one: Tensor, one_lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Combine attention over two sets of keys into attention over both. [B, S, heads, D] and [B, S, heads]"""
    lse = torch.logaddexp(one_lse, other_lse)
    weights = [(part - lse).exp_()[..., None] for part in (one_lse, other_lse)]
    return (one * weights[0] + other * weights[1]).to(one.dtype), lse


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _flex(query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float) -> Tensor:
    """Attend with FlexAttention (CUDA; untested without a GPU). [1, heads, T, D]"""
    attended: Tensor = _compiled_flex()(query, key, value, block_mask=_flex_mask(blocks), scale=scale)
    return attended


def _flex_mask(blocks: Blocks) -> Any:
    """Return the row's block mask, built once per batch: every layer asks for it."""
    if not hasattr(blocks, "_flex_mask"):
        from torch.nn.attention.flex_attention import create_block_mask

        def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            segment = blocks.segments[column]
            return (row >= column) & ((blocks.segments[row] == segment) | (blocks.parents[row] == segment))

        tokens = len(blocks.slots)
        mask = create_block_mask(sees, None, None, tokens, tokens, device=blocks.slots.device)
        object.__setattr__(blocks, "_flex_mask", mask)
    return blocks._flex_mask  # type: ignore[attr-defined]


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
