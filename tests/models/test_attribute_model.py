import json

import pytest
import torch

from steerlm_core.annotated_text import AnnotatedText
from steerlm_core.attributes import AttributeSpec
from steerlm_core.config import FitConfig
from steerlm_core.embedded.annotated import ATTRIBUTE_TEXTS, annotated_stories
from steerlm_core.errors import DataError, ModelError, PromptTooLongError
from steerlm_core.models.attribute_model import attribute_model_from_trunk, load_attribute_model, measure_quality
from steerlm_core.training.attribute_fit import fit_attribute_model, masked_error
from steerlm_core.training.base_model import BaseConfig, base_model

RATERS = {"verbosity": "word_count", "mood": "sentiment"}
ATTRIBUTES = [AttributeSpec(name=name) for name in RATERS]
TINY = BaseConfig(hidden=32, layers=1, heads=2, intermediate=64, stories=640, validation_stories=8, batch=16)
NAN = float("nan")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    return base_model(1, tmp_path_factory.mktemp("cache"), config=TINY)


@pytest.fixture(scope="module")
def texts():
    return annotated_stories(400, 1, ATTRIBUTE_TEXTS, ATTRIBUTES, RATERS)


@pytest.fixture(scope="module")
def fitted(trunk, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attribute")
    config = FitConfig(epochs=3, learning_rate=3e-3)
    told: list[tuple[int, int, str]] = []
    quality = fit_attribute_model(
        trunk, texts[100:], config, attributes=ATTRIBUTES, validation=texts[:100], output=folder, seed=1,
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    steps = [words for words in told if words[2] == "steps"]
    assert steps == [(step, 30, "steps") for step in range(1, len(steps) + 1)]
    assert len(steps) in (20, 30)  # two passes, or all three
    return folder, quality


def test_it_learns_and_says_how_well(fitted, texts):
    folder, quality = fitted
    assert quality["verbosity"].r2 > 0.9
    assert quality["mood"].spearman > 0.5
    model = load_attribute_model(folder)
    assert model.quality == quality
    assert model.sigma == [quality["verbosity"].sigma, quality["mood"].sigma]
    assert json.loads((folder / "attribute_model.json").read_text())["attributes"][1]["name"] == "mood"
    predicted = model.predict([t.prompt for t in texts[:100]], [t.response for t in texts[:100]])
    residual = predicted - torch.tensor([t.levels for t in texts[:100]])
    assert residual.std(0, unbiased=False).tolist() == pytest.approx(model.sigma, rel=1e-4)


def test_a_frozen_trunk_is_left_alone_and_its_head_is_solved(trunk, texts, tmp_path):
    config = FitConfig(trunk="freeze")
    told: list[tuple[int, int, str]] = []
    quality = fit_attribute_model(
        trunk, texts[100:], config, attributes=ATTRIBUTES, validation=texts[:100], output=tmp_path, seed=1,
        progress=lambda *words: told.append(words),
    )  # fmt: skip
    assert told == [(min(done, 300), 300, "texts") for done in range(32, 332, 32)]
    assert quality["verbosity"].r2 > 0.8
    before = attribute_model_from_trunk(trunk, ATTRIBUTES).trunk.state_dict()
    after = load_attribute_model(tmp_path).trunk.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_predictions_do_not_depend_on_batch_or_order(fitted, texts):
    model = load_attribute_model(fitted[0])
    prompts, responses = [t.prompt for t in texts[:20]], [t.response for t in texts[:20]]
    together = model.predict(prompts, responses, batch=7)
    alone = torch.cat([model.predict([p], [r]) for p, r in zip(prompts, responses, strict=True)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert together.shape == (20, 2)


def test_missing_levels_do_not_count():
    levels = torch.tensor([[1.0, NAN], [NAN, 3.0]])
    error = masked_error(torch.tensor([[2.0, 100.0], [100.0, 3.0]]), levels)
    assert error.item() == 0.5
    quality = measure_quality(torch.tensor([[2.0, 9.0], [9.0, 3.0]]), levels, ATTRIBUTES)
    assert [quality[name].texts for name in RATERS] == [1, 1]
    assert [quality[name].mae for name in RATERS] == [1, 0]


@pytest.mark.parametrize("levels", [(NAN, NAN), (-100.0, NAN)])
def test_a_text_without_any_level_is_refused(trunk, texts, tmp_path, levels):
    bad = [*texts[:3], AnnotatedText("Tell me", "nobody judged this", levels)]
    with pytest.raises(DataError, match=r"text 3 \('nobody judged this'…\) has no level for any of: verbosity, mood"):
        fit_attribute_model(trunk, bad, FitConfig(), attributes=ATTRIBUTES, validation=texts, output=tmp_path, seed=1)


def test_errors_name_the_place(trunk, fitted, tmp_path):
    with pytest.raises(ModelError, match="no attribute model"):
        load_attribute_model(trunk)
    with pytest.raises(PromptTooLongError, match="context is 256"):
        load_attribute_model(fitted[0]).predict(["fox " * 300], ["ran"])
    with pytest.raises(ModelError, match="cannot be loaded as the trunk"):
        attribute_model_from_trunk(tmp_path, ATTRIBUTES)
