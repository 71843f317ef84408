"""Models that need a way of their own: found by trying, not by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    GraniteConfig,
    MistralConfig,
)

from steerlm_core.models import capability, prefix_attention
from steerlm_core.models.capability import capability_of, supports_shared_prefix
from steerlm_core.models.scoring import batch_log_probs, response_log_probs
from tests.models.small import (
    CONFIGS,
    GROUPS,
    SMALL,
    make,
    own_log_probs,
)


def test_a_sliding_window_falls_back_to_padded_rows_and_says_what_it_costs():
    model = make(MistralConfig(**SMALL, sliding_window=4))
    attention_before = model.config._attn_implementation
    supported, reason = supports_shared_prefix(model)
    assert not supported
    assert "sliding_window=4" in reason
    assert model.config._attn_implementation == attention_before
    with pytest.warns(UserWarning, match=r"sliding_window=4\. It costs 1\.8 times the tokens"):
        scores = response_log_probs(model, GROUPS, token_budget=100)
    found = torch.cat([tokens[:, 0] for group in scores for tokens in group.tokens])
    torch.testing.assert_close(found, own_log_probs(model, GROUPS), rtol=1e-5, atol=3e-6)


def test_a_wrong_packed_result_is_found_without_being_named(monkeypatch):
    monkeypatch.setattr(capability, "_known", {})
    monkeypatch.setattr(prefix_attention, "_merge", lambda one, one_lse, other, other_lse: (one, one_lse))
    supported, reason = supports_shared_prefix(make(CONFIGS["llama"]()))
    assert not supported
    assert "log-probs differ by" in reason


def test_a_layer_that_does_not_attend_is_found(monkeypatch):
    monkeypatch.setattr(capability, "_known", {})
    model = make(CONFIGS["llama"]())
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    assert supports_shared_prefix(model) == (
        False,
        "LlamaForCausalLM cannot share a row: 1 of 2 layers do not attend",
    )


@pytest.mark.parametrize(
    ("config", "shared"),
    [
        (GraniteConfig(**SMALL, logits_scaling=3.0), True),
        (Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=3.0), False),
    ],
)
def test_logits_changed_behind_the_head_are_the_models_own(config, shared):
    model = make(config)
    known = capability_of(model)
    assert (known.shared_prefix, known.plain_head) == (shared, False)
    scored = batch_log_probs(model, GROUPS, layout="shared_prefix" if shared else "padded").log_probs
    torch.testing.assert_close(scored, own_log_probs(model, GROUPS), rtol=1e-5, atol=3e-6)
