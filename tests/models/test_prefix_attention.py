"""Attention over shared prefixes: by blocks as by a dense mask, and plain where there are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steerlm_core.models import packing, prefix_attention
from steerlm_core.models.packing import pack
from steerlm_core.models.scoring import choose_layout
from tests.models.small import (
    CONFIGS,
    GROUPS,
    make,
)


@pytest.mark.parametrize("cheap", [0, 1 << 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_block_attention_equals_dense_attention(monkeypatch, dtype, cheap):
    monkeypatch.setattr(packing, "_CHEAP_PAIRS", cheap)
    torch.manual_seed(0)
    blocks = pack(GROUPS, "shared_prefix").blocks
    states = [torch.randn(1, 4, len(blocks.slots), 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    direction = torch.randn(1, len(blocks.slots), 4, 8, dtype=dtype)
    dense = prefix_attention.dense_attention(*states, blocks, 0.3)
    block = prefix_attention.attention(nn.Identity(), *states, None, scaling=0.3, blocks=blocks)[0]
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-13}[dtype]
    torch.testing.assert_close(block, dense, rtol=0, atol=tolerance)
    expected = torch.autograd.grad(dense, states, direction)
    for one, other in zip(torch.autograd.grad(block, states, direction), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5 * tolerance)


def test_without_blocks_the_attention_is_plain_sdpa():
    model = make(CONFIGS["llama"]())
    rows = pack(GROUPS, "padded")
    inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask}
    before = model(**inputs).logits
    assert choose_layout(model, "auto") == "shared_prefix"
    assert model.config._attn_implementation == prefix_attention.NAME
    assert torch.equal(model(**inputs).logits, before)
