"""Small models of every kind, groups of responses, and the numbers that any way of scoring has to give."""

from __future__ import annotations

import random

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
)

from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.scoring import choose_layout

VOCABULARY = 60
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SMALL),
    "llama-tied": lambda: LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**SMALL),
    "qwen2-tied": lambda: Qwen2Config(**SMALL, tie_word_embeddings=True),
    "gpt2-tied": lambda: GPT2Config(**GPT2),
    "gpt2": lambda: GPT2Config(**GPT2, tie_word_embeddings=False),
}


def make(config, dtype=torch.float32):
    """A model whose attention matters: its weights are far larger than those of a fresh one."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or "bias" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


DRAWN = random.Random(5)


def ids(length):
    return tuple(DRAWN.randrange(VOCABULARY) for _ in range(length))


GROUPS = [
    TokenGroup(ids(7), (ids(5), ids(3), ids(9), ids(1))),
    TokenGroup(ids(2), (ids(2), ids(6))),
    TokenGroup(ids(11), (ids(8),)),
    TokenGroup(ids(1), (ids(1), ids(1))),
]


def own_log_probs(model, groups):
    """What the model's own forward says, one response at a time."""
    found = []
    for group in groups:
        for response in group.responses:
            logits = model(torch.tensor([group.prompt + response]), use_cache=False).logits[
                0, len(group.prompt) - 1 : -1
            ]
            found.append(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0])
    return torch.cat(found)


def packed(model):
    """The layout under test; a model that fell back to padded rows would pass unseen."""
    assert choose_layout(model, "auto") == "shared_prefix"
    return "shared_prefix"


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def relative(one, other):
    return float((one - other).norm() / other.norm())


def factors(groups):
    return torch.linspace(-1, 2, sum(len(y) for group in groups for y in group.responses))


def naive(hidden, weight, bias, targets, temperatures):
    logits = hidden @ weight.T if bias is None else hidden @ weight.T + bias
    return torch.stack([(logits / t).log_softmax(-1).gather(1, targets[:, None])[:, 0] for t in temperatures], 1)


def head(tokens=50, hidden=16, vocabulary=211, dtype=torch.float64, scale=1.0):
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(tokens, hidden), torch.randn(vocabulary, hidden) * scale, torch.randn(vocabulary)
    leaves = [part.to(dtype).requires_grad_() for part in (rows, weight, bias)]
    return *leaves, torch.randint(vocabulary, (tokens,))
