"""Sampling: every candidate is what a naive sampler draws from the model alone, however the work is cut."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from steerlm_core.config import GenerateConfig
from steerlm_core.models.distribution import Sampling
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.scoring import response_log_probs
from steerlm_core.sampling.sampler import Draw, Sample, noise_key, sample

END, WORDS = 0, 12
PROMPTS = ((1, 2, 3), (4,), (5, 6, 7, 8, 9, 10, 11), (3, 3))
SETTINGS = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.7},
    "all": {"temperature": 1.5, "top_k": 6, "top_p": 0.8},
}


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """A small model whose distributions are far from flat."""
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ).eval()


def _draws(prompts=PROMPTS, count: int = 6) -> list[Draw]:
    return [Draw(prompt, noise_key(1, 0, str(prompt), index)) for prompt in prompts for index in range(count)]


def _config(**settings: object) -> GenerateConfig:
    return GenerateConfig.model_validate({"max_new_tokens": 10, **settings})


def _kept(logits: np.ndarray, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """Probabilities of the distribution sampled from, word by word."""
    p = np.exp(logits / temperature - (logits / temperature).max())
    p /= p.sum()
    best = sorted(range(len(p)), key=lambda word: -p[word])
    if top_k:
        p[best[top_k:]] = 0
        p /= p.sum()
    mass, kept = 0.0, []
    for word in best:
        if mass < top_p:
            kept.append(word)
        mass += p[word]
    p[[word for word in best if word not in kept]] = 0
    return p / p.sum()


@torch.no_grad()
def _naively(model: LlamaForCausalLM, draw: Draw, limit: int, settings: dict) -> Sample:
    """One sequence, the whole text read again for each token, the inverse of the cumulative sum by a loop."""
    noise = np.random.Generator(np.random.Philox(key=draw.key)).random(limit)
    made = Sample()
    for uniform in noise:
        p = _kept(model(torch.tensor([[*draw.prompt, *made.ids]])).logits[0, -1].double().numpy(), **settings)
        below, token = 0.0, 0
        while below + p[token] <= uniform:
            below += p[token]
            token += 1
        made.ids.append(token)
        made.log_q.append(math.log(p[token]))
        if token == END:
            made.complete = True
            break
    return made


def _same(ours: list[Sample], theirs: list[Sample]) -> None:
    assert [each.ids for each in ours] == [each.ids for each in theirs]
    assert [each.complete for each in ours] == [each.complete for each in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.log_q == pytest.approx(other.log_q, abs=1e-4)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_samples_are_those_of_a_naive_sampler(model, settings):
    draws = _draws()
    ours = sample(model, draws, _config(**settings), END)
    _same(ours, [_naively(model, draw, 10, settings) for draw in draws])
    lengths = {len(each.ids) for each in ours}
    assert len(lengths) > 3, "rows must end at different times, or nothing leaves the batch"
    assert {each.complete for each in ours} == {True, False}


@pytest.mark.parametrize("batch", [1, 2, 5, 7, 64])
def test_how_the_work_is_cut_does_not_change_a_candidate(model, batch):
    draws = _draws()
    _same(sample(model, draws, _config(batch=batch), END), sample(model, draws, _config(batch=24), END))


def test_neighbours_do_not_change_a_candidate(model):
    draws = _draws()
    whole = dict(zip(draws, sample(model, draws, _config(), END), strict=True))
    mixed = [draws[i] for i in np.random.default_rng(0).permutation(len(draws))[:15]]
    _same(sample(model, mixed, _config(), END), [whole[draw] for draw in mixed])


def test_the_response_ends_with_the_end_token_or_at_the_limit(model):
    found = sample(model, _draws(count=20), _config(max_new_tokens=5), END)
    for each in found:
        assert END not in each.ids[:-1]
        assert each.complete == (each.ids[-1] == END)
        assert each.complete or len(each.ids) == 5
        assert len(each.log_q) == len(each.ids) <= 5
    assert {(each.complete, len(each.ids)) for each in found} >= {(True, 1), (True, 5), (False, 5)}


def test_a_lower_limit_cuts_the_same_responses_short(model):
    longer = sample(model, _draws(), _config(max_new_tokens=9), END)
    shorter = sample(model, _draws(), _config(max_new_tokens=4), END)
    assert [each.ids for each in shorter] == [each.ids[:4] for each in longer]


@pytest.mark.parametrize("name", SETTINGS)
def test_log_q_is_what_scoring_says(model, name):
    draws = _draws()
    found = sample(model, draws, _config(**SETTINGS[name]), END)
    groups = [TokenGroup(draw.prompt, (tuple(each.ids),)) for draw, each in zip(draws, found, strict=True)]
    sampling = Sampling(**SETTINGS[name]) if SETTINGS[name] else None
    for each, scored in zip(found, response_log_probs(model, groups, token_budget=512, sampling=sampling), strict=True):
        assert each.log_q == pytest.approx(scored.tokens[0][:, -1].tolist(), abs=1e-4)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_frequencies_are_the_probabilities(model, settings):
    count = 4000
    draws = [Draw(PROMPTS[0], noise_key(7, 0, "frequencies", index)) for index in range(count)]
    found = sample(model, draws, _config(max_new_tokens=1, batch=count, **settings), END)
    with torch.no_grad():
        p = _kept(model(torch.tensor([PROMPTS[0]])).logits[0, -1].double().numpy(), **settings)
    seen = np.bincount([each.ids[0] for each in found], minlength=WORDS)
    assert not seen[p == 0].any()
    common = p * count >= 5  # chi-square wants no rarer cells; the rest is one
    cells = np.append(seen[common], seen[~common].sum()), np.append(p[common], p[~common].sum()) * count
    if cells[1][-1] < 1:
        cells = cells[0][:-1], cells[1][:-1] * cells[0][:-1].sum() / cells[1][:-1].sum()
    assert chisquare(*cells).pvalue > 0.01


def test_keys_tell_run_stage_group_and_number_apart():
    base = (1, 0, "group", 0)
    others = [(2, 0, "group", 0), (1, 1, "group", 0), (1, 0, "other", 0), (1, 0, "group", 1)]
    assert len({noise_key(*key) for key in (base, *others)}) == 5
    assert noise_key(*base) == noise_key(*base)


def test_progress_counts_draws_and_of_a_batch_at_work_the_tokens(model):
    told: list[tuple[int, int]] = []
    sample(model, _draws(), _config(batch=10, max_new_tokens=1), END, lambda *counts: told.append(counts))
    assert told == [(done, 24) for done in (0, 10, 10, 20, 20, 24)]
    told.clear()
    draws = sample(model, _draws(), _config(batch=24, max_new_tokens=6), END, lambda *counts: told.append(counts))
    assert max(len(drawn.ids) for drawn in draws) == 6
    assert told == [(done, 24) for done in (0, 4, 8, 12, 16, 20, 24)]
