"""Log-probs of responses: every layout, chunking and batching gives the numbers of the model's own logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
)

from steerlm_core.errors import CaptureError, ModelError
from steerlm_core.models.capability import supports_shared_prefix
from steerlm_core.models.distribution import Sampling
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.scoring import batch_log_probs, choose_layout, response_log_probs, sum_by_candidate
from tests.models.small import (
    CONFIGS,
    GPT2,
    GROUPS,
    VOCABULARY,
    factors,
    gradient,
    make,
    own_log_probs,
    packed,
    relative,
)


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
