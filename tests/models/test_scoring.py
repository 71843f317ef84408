"""Log-probs of responses: every layout, chunking and batching gives the numbers of the model's own logits."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from steerlm_core.errors import CaptureError, ModelError
from steerlm_core.models import capability, liger_head, log_probs, packing, prefix_attention
from steerlm_core.models.capability import capability_of, supports_shared_prefix
from steerlm_core.models.distribution import Sampling, filtered_log_probs
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.log_probs import token_log_probs
from steerlm_core.models.packing import pack
from steerlm_core.models.scoring import batch_log_probs, choose_layout, response_log_probs, sum_by_candidate

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


@pytest.mark.parametrize("layout", ["shared_prefix", "padded"])
@pytest.mark.parametrize("name", CONFIGS)
def test_layouts_give_the_models_own_log_probs_and_gradients(name, layout):
    model = make(CONFIGS[name]())
    assert supports_shared_prefix(model) == (True, "")
    expected = own_log_probs(model, GROUPS)
    expected_gradient = gradient(model, (expected * factors(GROUPS)).sum())
    scored = batch_log_probs(model, GROUPS, layout=layout).log_probs
    torch.testing.assert_close(scored, expected, rtol=1e-5, atol=3e-6)
    assert relative(gradient(model, (scored * factors(GROUPS)).sum()), expected_gradient) < 1e-6


class ExactNorm(nn.Module):
    """RMSNorm in the model's own type: transformers' goes through float32."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, hidden):
        return self.weight * hidden * (hidden.square().mean(-1, keepdim=True) + self.eps).rsqrt()


@pytest.mark.parametrize("name", CONFIGS)
def test_layouts_are_equal_in_float64(name):
    model = make(CONFIGS[name](), torch.float64)
    for module in list(model.modules()):
        for child, norm in list(module.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                setattr(module, child, ExactNorm(norm))
    assert supports_shared_prefix(model)[0]
    found = []
    for layout in ("shared_prefix", "padded"):
        scored = batch_log_probs(model, GROUPS, layout=layout).log_probs
        found.append((scored.detach(), gradient(model, (scored * factors(GROUPS)).sum())))
    (packed, packed_gradient), (padded, padded_gradient) = found
    assert relative(packed, padded) < 1e-13
    assert relative(packed_gradient, padded_gradient) < 1e-12


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_nothing_leaks_between_responses_or_groups(name):
    model = make(CONFIGS[name]())
    layout = packed(model)
    scores = batch_log_probs(model, GROUPS, layout=layout)
    numbers = [(g, n) for g, group in enumerate(GROUPS) for n in range(len(group.responses))]
    for changed, (g, n) in enumerate(numbers):
        responses = list(GROUPS[g].responses)
        responses[n] = tuple((token + 1) % VOCABULARY for token in responses[n])
        groups = [*GROUPS[:g], TokenGroup(GROUPS[g].prompt, tuple(responses)), *GROUPS[g + 1 :]]
        others = scores.candidate_index != changed
        again = batch_log_probs(model, groups, layout=layout).log_probs
        assert torch.equal(again[others], scores.log_probs[others])
        assert not torch.isclose(again[~others], scores.log_probs[~others]).any()


def test_a_change_of_one_prompt_changes_its_own_responses_only():
    model = make(CONFIGS["llama"]())
    layout = packed(model)
    scores = batch_log_probs(model, GROUPS, layout=layout)
    first = TokenGroup((GROUPS[0].prompt[0] + 1, *GROUPS[0].prompt[1:]), GROUPS[0].responses)
    again = batch_log_probs(model, [first, *GROUPS[1:]], layout=layout).log_probs
    own = scores.candidate_index < 4
    assert torch.equal(again[~own], scores.log_probs[~own])
    assert not torch.isclose(again[own], scores.log_probs[own]).any()


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


def test_activation_checkpointing_changes_nothing():
    model = make(CONFIGS["llama"]())
    layout = packed(model)
    expected = gradient(model, (batch_log_probs(model, GROUPS, layout=layout).log_probs * factors(GROUPS)).sum())
    model.activation_checkpointing_enable()
    model.train()
    again = gradient(model, (batch_log_probs(model, GROUPS, layout=layout).log_probs * factors(GROUPS)).sum())
    assert relative(again, expected) < 1e-7


def test_dropout_is_refused():
    model = make(GPT2Config(**GPT2, attn_pdrop=0.0, embd_pdrop=0.1, resid_pdrop=0.0)).train()
    with pytest.raises(ModelError, match=r"transformer\.drop: dropout is 0\.1"):
        batch_log_probs(model, GROUPS, layout="padded")
    model.eval()
    batch_log_probs(model, GROUPS, layout="padded")


class Engine(nn.Module):
    """Stands for what DeepSpeed wraps around a model."""

    def __init__(self, module):
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, **inputs):
        self.calls += 1
        return self.module(**inputs)


def test_an_engine_is_called_itself():
    model = make(CONFIGS["llama"]())
    engine = Engine(model)
    layout = packed(engine)
    calls = engine.calls
    scored = batch_log_probs(engine, GROUPS, layout=layout).log_probs
    assert engine.calls == calls + 1
    assert torch.equal(scored, batch_log_probs(model, GROUPS, layout=layout).log_probs)


def test_the_head_is_itself_again_even_after_an_error(monkeypatch):
    model = make(CONFIGS["llama"]())
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


# Models that need a way of their own


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


# Many groups


def test_sums_by_candidate_are_padded_where_groups_are_short():
    model = make(CONFIGS["llama"]())
    scores = batch_log_probs(model, GROUPS, layout="padded")
    sums = sum_by_candidate(scores)
    assert sums.valid.tolist() == [[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3, [True] * 2 + [False] * 2]
    assert sums.response_tokens.tolist() == [[5, 3, 9, 1], [2, 6, 0, 0], [8, 0, 0, 0], [1, 1, 0, 0]]
    assert sums.log_probs.dtype == torch.float64
    assert sums.log_probs[1, 1].item() == pytest.approx(
        scores.log_probs[scores.candidate_index == 5].double().sum().item()
    )
    assert sums.log_probs[1, 2] == 0
    sums.log_probs[sums.valid].sum().backward()
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize("layout", ["shared_prefix", "padded"])
@pytest.mark.parametrize("budget", [8, 40, 1000])
def test_many_groups_keep_their_order_whatever_the_budget(layout, budget):
    model = make(CONFIGS["llama"]())
    choose_layout(model, "auto")
    expected = iter(own_log_probs(model, GROUPS).split([len(y) for group in GROUPS for y in group.responses]))
    scores = response_log_probs(model, GROUPS, token_budget=budget, layout=layout)
    for group, score in zip(GROUPS, scores, strict=True):
        assert [len(tokens) for tokens in score.tokens] == [len(y) for y in group.responses]
        for number, tokens in enumerate(score.tokens):
            assert tokens.dtype == torch.float32
            torch.testing.assert_close(tokens[:, 0], next(expected), rtol=1e-5, atol=3e-6)
            assert score.sums[number, 0].item() == pytest.approx(float(tokens.double().sum()), abs=1e-12)
    assert response_log_probs(model, [], token_budget=budget) == []


def test_columns_are_temperatures_and_the_sampling_distribution():
    model = make(CONFIGS["llama"]())
    sampling = Sampling(temperature=0.7, top_k=VOCABULARY - 1, top_p=1.0)
    group = TokenGroup(GROUPS[0].prompt, GROUPS[0].responses[:1])
    tokens = response_log_probs(model, [group], temperatures=(1.0, 0.7), sampling=sampling, token_budget=99)[0].tokens[
        0
    ]
    logits = model(torch.tensor([group.prompt + group.responses[0]])).logits[0, len(group.prompt) - 1 : -1]
    chosen = torch.tensor(group.responses[0])[:, None]
    torch.testing.assert_close(tokens[:, 0], logits.log_softmax(-1).gather(1, chosen)[:, 0], rtol=1e-5, atol=3e-6)
    torch.testing.assert_close(
        tokens[:, 1], (logits / 0.7).log_softmax(-1).gather(1, chosen)[:, 0], rtol=1e-5, atol=5e-6
    )
    smallest = (logits / 0.7).softmax(-1).min(1).values
    torch.testing.assert_close(tokens[:, 2], tokens[:, 1] - (1 - smallest).log(), rtol=1e-5, atol=5e-6)


def test_a_token_outside_the_kept_set_is_refused_by_name():
    model = make(CONFIGS["llama"]())
    prompt = GROUPS[0].prompt
    likeliest = int(model(torch.tensor([prompt])).logits[0, -1].argmax())
    fine = TokenGroup(prompt, ((likeliest,),))
    assert response_log_probs(model, [fine], sampling=Sampling(top_k=1), token_budget=99)[0].sums.tolist()[0][1] == 0
    wrong = TokenGroup(prompt, ((likeliest,), ((likeliest + 1) % VOCABULARY,)))
    with pytest.raises(CaptureError, match=rf"group 1, candidate 1, token 0 \(id {(likeliest + 1) % VOCABULARY}\)"):
        response_log_probs(model, [fine, wrong], sampling=Sampling(top_k=1), token_budget=99)


def test_filters_keep_the_likeliest_and_renormalise():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    cases = [
        ((1.0, 2, 1.0), [0.625, 0.375, 0, 0]),
        ((1.0, 0, 0.4), [1, 0, 0, 0]),
        ((1.0, 0, 0.6), [0.625, 0.375, 0, 0]),
    ]
    cases += [((1.0, 3, 0.53), [0.625, 0.375, 0, 0]), ((1.0, 0, 1.0), [0.5, 0.3, 0.15, 0.05])]
    for options, expected in cases:
        torch.testing.assert_close(filtered_log_probs(logits, *options).exp(), torch.tensor([expected]).float())
    tempered = torch.tensor([[0.25, 0.09, 0.0225, 0.0025]])
    torch.testing.assert_close(filtered_log_probs(logits, 0.5).exp(), tempered / tempered.sum())


# The head


def naive(hidden, weight, bias, targets, temperatures):
    logits = hidden @ weight.T if bias is None else hidden @ weight.T + bias
    return torch.stack([(logits / t).log_softmax(-1).gather(1, targets[:, None])[:, 0] for t in temperatures], 1)


def head(tokens=50, hidden=16, vocabulary=211, dtype=torch.float64, scale=1.0):
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(tokens, hidden), torch.randn(vocabulary, hidden) * scale, torch.randn(vocabulary)
    leaves = [part.to(dtype).requires_grad_() for part in (rows, weight, bias)]
    return *leaves, torch.randint(vocabulary, (tokens,))


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


def one_gradient_for_all_tokens(hidden, weight, bias, targets):
    """Right values, and the gradient that Liger had before its pull request 1298."""
    right = naive(hidden, weight, bias, targets, (1.0,))[:, 0]
    wrong = right * 0.0 + right.detach()
    return wrong + (right - right.detach()).sum() / len(right)


def test_a_fused_kernel_is_used_only_where_it_agrees():
    cpu = torch.device("cpu")
    assert liger_head.agrees(lambda *head: naive(*head, (1.0,))[:, 0], log_probs._plain_log_probs, cpu)
    with pytest.warns(UserWarning, match="not used: its gradients differ"):
        assert not liger_head.agrees(one_gradient_for_all_tokens, log_probs._plain_log_probs, cpu)
    with pytest.warns(UserWarning, match="not used: ZeroDivisionError"):
        assert not liger_head.agrees(lambda *_: 1 / 0, log_probs._plain_log_probs, cpu)
    assert not liger_head.fits(nn.Linear(4, 4), torch.zeros(1, 4), (1.0,), log_probs._plain_log_probs)


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
