import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlm_core.annotated_text import AnnotatedText
from steerlm_core.attributes import AttributeSpec
from steerlm_core.config import FitConfig, PromptFormat
from steerlm_core.embedded.annotated import BOOTSTRAP_TEXTS, annotated_stories
from steerlm_core.errors import DataError, NonFiniteError
from steerlm_core.training.base_model import BaseConfig, base_model
from steerlm_core.training.supervised import (
    Example,
    Trainer,
    batches,
    fit_sft,
    micro_batches,
    nll,
    sft_examples,
    validation_loss,
)

RATERS = {"verbosity": "word_count", "mood": "sentiment"}
ATTRIBUTES = [AttributeSpec(name=name) for name in RATERS]
TINY = BaseConfig(hidden=32, layers=1, heads=2, intermediate=64, stories=640, validation_stories=8, batch=16)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return base_model(1, tmp_path_factory.mktemp("cache"), config=TINY)


@pytest.fixture(scope="module")
def examples(prior):
    texts = annotated_stories(80, 1, BOOTSTRAP_TEXTS, ATTRIBUTES, RATERS)
    return sft_examples(texts, ATTRIBUTES, PromptFormat(), AutoTokenizer.from_pretrained(prior))


def test_an_example_is_labelled_prompt_then_learned_response_and_end(prior):
    tokenizer = AutoTokenizer.from_pretrained(prior)
    text = AnnotatedText("Tell me about a fox in the town.", "The fox ran.", (float("nan"), 3.0))
    (example,) = sft_examples([text], ATTRIBUTES, PromptFormat(), tokenizer)
    learned = example.ids[example.learn_from :]
    assert tokenizer.decode(example.ids[: example.learn_from]) == "Tell me about a fox in the town.\n[mood:3]\n"
    assert tokenizer.decode(learned) == "The fox ran.<end>"


def test_only_learned_tokens_count_and_padding_never_does(prior):
    model = AutoModelForCausalLM.from_pretrained(prior).eval()
    examples = [Example(tuple(range(5, 5 + length)), length // 2) for length in (4, 9, 30)]
    together = nll(model, examples).item()
    logits = [model(torch.tensor([e.ids])).logits[0].log_softmax(-1) for e in examples]
    alone = -sum(
        logits[i][t - 1, e.ids[t]].item() for i, e in enumerate(examples) for t in range(e.learn_from, len(e.ids))
    )
    assert together == pytest.approx(alone, rel=1e-5)


def test_micro_batches_are_an_exact_partition_with_little_padding(examples):
    pieces = list(micro_batches(examples))
    assert sorted(e.ids for piece in pieces for e in piece) == sorted(e.ids for e in examples)
    assert len(pieces) > 1
    for piece in pieces:
        padded = len(piece) * max(len(e.ids) for e in piece)
        assert sum(len(e.ids) for e in piece) >= 0.75 * padded


def test_a_micro_batch_does_not_mix_long_and_short():
    batch = [Example(tuple(range(length)), 1) for length in (4, 40, 5, 39)]
    assert [[len(e.ids) for e in piece] for piece in micro_batches(batch)] == [[40, 39], [5, 4]]


def test_every_pass_sees_each_example_once_in_another_order(examples):
    first, second = (list(batches(examples, 32, 1, epoch)) for epoch in (1, 2))
    assert first != second
    assert sorted(e.ids for b in first for e in b) == sorted(e.ids for b in second for e in b)
    assert first == list(batches(examples, 32, 1, 1))


def test_the_best_pass_is_kept_and_training_stops(prior, examples, tmp_path):
    config = FitConfig(epochs=40, learning_rate=3e-2, patience=1)
    told: list[tuple[int, int, str]] = []
    result = fit_sft(
        prior, examples[16:26], config, validation=examples[:16], output=tmp_path, seed=1,
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert told == [(step, 40, "steps") for step in range(1, result.epochs + 1)]
    losses = result.validation_losses
    assert losses[result.best_epoch] == min(losses) < losses[0]
    assert result.epochs == result.best_epoch + 1 < 40
    assert result.tokens == result.epochs * sum(len(e.ids) for e in examples[16:26])
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert validation_loss(saved, examples[:16]) == pytest.approx(min(losses), rel=1e-5)


def test_a_token_budget_trains_on_without_early_stopping(prior, examples, tmp_path):
    config = FitConfig(learning_rate=2e-2, batch=16, patience=1)
    told: list[tuple[int, int, str]] = []
    result = fit_sft(
        prior, examples[16:], config, validation=examples[:16], output=tmp_path, seed=1, max_tokens=20_000,
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert len(told) > result.epochs
    assert [told[-1], *told[:-1]] == [(20_000, 20_000, "tokens"), *sorted(told[:-1])]
    assert 20_000 <= result.tokens < 20_000 + 16 * 120
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert validation_loss(saved, examples[:16]) == pytest.approx(result.validation_losses[-1], rel=1e-5)


def test_same_seed_same_model(prior, examples, tmp_path):
    weights = []
    for name in ("a", "b"):
        fit_sft(prior, examples[16:], FitConfig(epochs=1), validation=examples[:16], output=tmp_path / name, seed=1)
        weights.append(AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_mistakes_are_named(prior, examples, tmp_path):
    with pytest.raises(DataError, match="got 80 to train and 0 to validate on"):
        fit_sft(prior, examples, FitConfig(), validation=[], output=tmp_path, seed=1)
    model = AutoModelForCausalLM.from_pretrained(prior)
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the loss of step 1 is nan; lower the learning rate"):
        Trainer(model, 1e-3, 0.0).step(examples[:4], 1.0)
