"""A model without its weights: the outline says what the model will say, and what only looks at it makes no weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoTokenizer

from steerlm_core.begin import begin
from steerlm_core.errors import ModelError
from steerlm_core.models.loading import context_length, load_causal_lm
from steerlm_core.models.outline import Outline, check_same_vocabulary
from steerlm_core.steps.references import outline_model, resolve_model
from steerlm_core.store import open_store
from steerlm_core.training.base_model import BaseConfig, base_model, base_outline
from tests.in_process import Steerlm
from tests.packaged import CONTEXT, HIDDEN
from tests.tiny import tiny_settings

TINY = BaseConfig(hidden=16, layers=1, heads=2, intermediate=16, context=128, stories=96, validation_stories=8)
TEXT = "Tell me about a fox by the river.\n[verbosity:4,mood:0]\n"


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """A run's settings; they are made first, as their prior is trained if the cache of the tests lacks it."""
    return tiny_settings()


@pytest.fixture
def cache(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of models."""
    monkeypatch.setenv("STEERLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def parameters(settings: dict[str, Any]) -> Iterator[list[str]]:
    """The names of all parameters that modules are given, of models that are trained or loaded."""
    names: list[str] = []
    handle = register_module_parameter_registration_hook(lambda module, name, parameter: names.append(name))
    yield names
    handle.remove()


def _same(outline: Outline, folder: Path) -> None:
    """The outline is that of the model in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_same_vocabulary(outline, Outline("", tokenizer, None))
    assert outline.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    assert outline.context == context_length(folder)


def test_the_outline_of_the_embedded_model_is_what_it_will_have(tmp_path: Path, parameters: list[str]) -> None:
    outline = base_outline(1, tmp_path, TINY)
    assert parameters == []
    assert not list(tmp_path.iterdir())
    folder = base_model(1, tmp_path, config=TINY)
    assert parameters
    _same(outline, folder)
    _same(base_outline(1, tmp_path, TINY), folder)


def test_the_outline_of_a_packaged_model_is_what_it_unpacks_to(
    package: str, cache: Path, parameters: list[str]
) -> None:
    outline = outline_model(package, 1, "models.prior")
    assert parameters == []
    assert not cache.exists()
    assert outline.context == CONTEXT
    said = []
    folder = resolve_model(package, 1, "models.prior", lambda *words: said.append(words))
    assert said == [(done, 3, "stages") for done in range(4)]
    assert parameters
    _same(outline, folder)
    parameters.clear()
    _same(outline_model(package, 1, "models.prior"), folder)
    assert parameters == []
    assert load_causal_lm(folder, "float32").config.hidden_size == HIDDEN


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_what_reads_packaged_models_is_named_where_it_is_missing(
    package: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=rf"models\.prior: 'tiny\.gguf' .*without {missing}; .*\[smollm2\]"):
        outline_model(package, 1, "models.prior")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match=rf"models\.policy: tokenizer or configuration of {tmp_path} cannot be read"):
        outline_model(str(tmp_path), 1, "models.policy")


# What looks at a run's models before it begins: the pipeline's first step, and `steerlm validate`.

Look = Callable[[dict[str, Any]], None]


@pytest.fixture(params=["begin", "validate"])
def look(request: pytest.FixtureRequest, tmp_path: Path, steerlm: Steerlm) -> Look:
    def begins(given: dict[str, Any]) -> None:
        root = str(tmp_path / "run")
        run = begin(root, "", given, "", "job")
        assert run
        assert run.root == root
        assert [found.key for found in open_store(root).listing()] == ["run.json"]

    def validates(given: dict[str, Any]) -> None:
        (tmp_path / "given.yaml").write_text(yaml.safe_dump(given))
        ended = steerlm("validate", tmp_path / "given.yaml")
        assert (ended.code, ended.err) == (0, "")

    return begins if request.param == "begin" else validates


def test_the_embedded_model_is_not_trained_to_be_looked_at(
    look: Look, settings: dict[str, Any], cache: Path, parameters: list[str]
) -> None:
    look(settings | {"models": {"prior": "embedded:stories"}})
    assert parameters == []
    assert not cache.exists()


def test_a_packaged_model_is_not_unpacked_to_be_looked_at(
    look: Look, settings: dict[str, Any], package: str, cache: Path, parameters: list[str]
) -> None:
    look(settings | {"models": {"prior": package, "policy": package}})
    assert parameters == []
    assert not cache.exists()


def test_of_a_model_in_a_bucket_the_weights_are_not_looked_at(
    look: Look, settings: dict[str, Any], bucket: str, tmp_path: Path, parameters: list[str]
) -> None:
    store = open_store(bucket)
    for path in base_model(1, tmp_path, config=TINY).iterdir():
        store.upload(f"prior/{path.name}", path)
    store.delete(["prior/model.safetensors"])
    parameters.clear()
    models = {"prior": f"{bucket}/prior", "policy": f"{bucket}/prior"}
    look(settings | {"models": models})
    assert parameters == []


@pytest.mark.usefixtures("cache")
def test_models_of_different_vocabularies_are_told_by_their_outlines(
    settings: dict[str, Any], tmp_path: Path, package: str
) -> None:
    policy = base_model(1, tmp_path, config=TINY)
    models = {"prior": package, "policy": str(policy)}
    with pytest.raises(ModelError, match=rf"prior \(.*tiny\.gguf\) and models\.policy \({policy}\) have different"):
        begin(str(tmp_path / "run"), "", settings | {"models": models}, "", "job")
    assert not (tmp_path / "run").exists()


def test_a_prompt_too_long_for_a_model_yet_to_be_unpacked_is_refused(
    settings: dict[str, Any], steerlm: Steerlm, tmp_path: Path, package: str, cache: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("short", "long " * 200)))
    wanted = settings["prompts"] | {"source": str(prompts), "train": 2, "held_out": 2}
    given = settings | {"models": {"prior": package}, "prompts": wanted}
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(given))
    ended = steerlm("validate", tmp_path / "given.yaml")
    assert ended.code == 2
    assert f"exceeds the model's context of {CONTEXT}" in ended.err
    assert not cache.exists()
