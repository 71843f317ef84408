"""Steps by parts: shards make what one process makes, and an interrupted step goes on where it was."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kfp import dsl

import steerlm_core.models.loading as loading
import steerlm_core.steps.generate as generate_module
import steerlm_core.steps.label as label_module
from components.data_processing.score import score
from steerlm_core import runtime
from steerlm_core.config import LabelConfig, parse_config
from steerlm_core.errors import CaptureError, ConfigError, ForeignOutputError
from steerlm_core.observe import events
from steerlm_core.observe.events import EventLog
from steerlm_core.runtime import run_step
from steerlm_core.store import open_store
from steerlm_core.store.contents import read_contents
from steerlm_core.store.manifest import Manifest
from tests.runs import run_at
from tests.toy.runs import Finished

OUTPUTS = {"generate": "candidates", "label": "labels", "score_prior": "prior_scores"}


@pytest.fixture
def root(finished: Finished, tmp_path: Path) -> Path:
    """One iteration of the toy world, in one process; to be changed."""
    return Path(shutil.copytree(finished(1), tmp_path / "run"))


def _output(root: Path, name: str) -> Manifest | None:
    return read_contents(open_store(str(root))).manifests.get(f"iterations/000/{name}")


def _undo(root: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(root / "iterations/000" / name)


# What a step counts, the output whose rows these are, and settings under which a part of it takes several batches.
BATCHED = {
    "generate": ("groups", "groups", {"generate": {"batch": 3}}),
    "label": ("texts", "candidates", {"label": {"batch": 3}}),
    "score_prior": ("texts", "candidates", {"train": {"token_budget": 64}}),
    "evaluate": ("groups", "groups", {"train": {"token_budget": 64}}),
}


@pytest.mark.parametrize("name", BATCHED)
def test_how_far_a_step_is_within_a_part_is_told_too(root, monkeypatch, name):
    monkeypatch.setattr(events, "_LISTENER_SECONDS", 0.0)
    unit, counted, changes = BATCHED[name]
    counts = [part.rows for part in _output(root, counted).parts if name != "evaluate" or part.split == "held_out"]
    run = run_at(root)
    raw = run.config.model_dump(mode="json")
    config = parse_config(raw | {section: raw[section] | values for section, values in changes.items()}, "toy")
    _undo(root, OUTPUTS.get(name, "evaluation"))
    heard: list[events.Event] = []
    run_step(replace(run, config=config, log=EventLog("toy", None, [heard.append])), name, 0)
    told = [event.fields["done"] for event in heard if event.kind == "progress" and event.fields["unit"] == unit]
    after_parts = set(accumulate(counts))
    assert told == sorted(told)
    assert told[-1] == sum(counts)
    assert after_parts < set(told) - {0}


def test_shards_make_what_one_process_makes(root):
    whole = {name: _output(root, output) for name, output in OUTPUTS.items()}
    assert whole["label"] is not None
    assert len(whole["label"].parts) > 3
    _undo(root, *OUTPUTS.values())
    run = run_at(root)
    for name, output in OUTPUTS.items():
        for index in (2, 0):
            assert run_step(run, name, 0, f"{index}/3") == {}
            assert _output(root, output) is None
        numbers = run_step(run, name, 0, "1/3")
        assert _output(root, output) == whole[name]
        assert run_step(run, name, 0, "0/3") == numbers == whole[name].metrics


def test_a_step_goes_on_at_the_part_where_it_was_interrupted(root, monkeypatch):
    whole = _output(root, "labels")
    assert whole is not None
    _undo(root, "labels")
    honest, labelled = label_module._label, []

    def dies_at_the_third(table: pa.Table, *rest: Any) -> pa.Table:
        labelled.append(table)
        if len(labelled) == 3:
            raise KeyboardInterrupt
        return honest(table, *rest)

    monkeypatch.setattr(label_module, "_label", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_step(run_at(root), "label", 0)
    run_step(run_at(root), "label", 0)
    assert len(labelled) == len(whole.parts) + 1
    assert _output(root, "labels") == whole


def test_parts_made_from_other_settings_are_not_taken_over(root):
    _undo(root, "labels")
    run = run_at(root)
    run_step(run, "label", 0, "0/2")
    other = run.config.model_copy(update={"label": LabelConfig(beta_concentration=3.0)})
    with pytest.raises(ForeignOutputError, match=r"labels/records/00000\.json: this part was made from other inputs"):
        run_step(replace(run, config=other), "label", 0)


def test_candidates_that_fail_the_gate_are_sampled_anew(root, monkeypatch):
    whole, honest = _output(root, "candidates"), generate_module.sample
    _undo(root, "candidates")

    def off(*arguments: Any) -> Any:
        samples = honest(*arguments)
        for each in samples:
            each.log_q = [log_q + 2.0 for log_q in each.log_q]
        return samples

    with monkeypatch.context() as patch:
        patch.setattr(generate_module, "sample", off)
        with pytest.raises(CaptureError):
            run_step(run_at(root), "generate", 0)
    run_step(run_at(root), "generate", 0)
    assert _output(root, "candidates") == whole


def test_a_shard_is_text_that_prepare_gives_and_a_step_takes(root):
    run = run_at(root)
    assert runtime.prepare(run, 2) == ["0/2", "1/2"]
    whole = _output(root, "candidates")
    assert whole is not None
    assert runtime.prepare(run, 99) == [f"{index}/{len(whole.parts)}" for index in range(len(whole.parts))]
    _undo(root, "candidates")
    assert run_step(run, "generate", 0, "1/2") == {}
    assert _output(root, "candidates") is None
    run_step(run, "generate", 0, "0/2")
    assert _output(root, "candidates") == whole


@pytest.mark.parametrize("text", ["2/2", "0/0", "0", "", "-1/2", "1/2/3", "0/2 ", "a/b"])
def test_what_is_no_shard_is_refused_with_what_would_be_one(root, text):
    with pytest.raises(ConfigError) as error:
        run_step(run_at(root), "generate", 0, text)
    assert str(error.value).startswith(f"shard '{text}': give INDEX/COUNT")


def test_a_pod_that_labels_and_scores_holds_one_model_at_a_time(root, tmp_path, monkeypatch):
    """The attribute model's memory is free before the prior is loaded."""
    _undo(root, "labels", "prior_scores")
    labelling, scoring, weights = loading.load_attribute_model, loading.load_causal_lm, []

    def noted(folder: Path) -> Any:
        model = labelling(folder)
        weights.extend(weakref.ref(each) for each in model.parameters())
        return model

    def only_one(*arguments: Any) -> Any:
        assert weights
        assert not [each for each in weights if each() is not None]
        return scoring(*arguments)

    monkeypatch.setattr(loading, "load_attribute_model", noted)
    monkeypatch.setattr(loading, "load_causal_lm", only_one)
    artifacts = [dsl.Artifact(uri=str(tmp_path / name)) for name in ("metrics", "labels", "prior_scores")]
    score.python_func(str(root), 0, *artifacts)
    assert _output(root, "labels")
    assert _output(root, "prior_scores")
