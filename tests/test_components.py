"""The components: their folders, their sources, and what each one calls."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from kfp import dsl

from steerlm_core.kubeflow.artifacts import shown
from tools.component_readmes import component_folders, readme

FOLDERS = component_folders()
ITERATION_STEPS = ["decide", "evaluate", "generate", "label", "score_prior", "train", "weigh"]
each_component = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def load(folder: Path):
    return getattr(importlib.import_module(f"components.{folder.parent.name}.{folder.name}"), folder.name)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Put the fake runtime in place, and return what was called."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "fake_runtime")
    fake = importlib.import_module("fake_runtime")
    for package, name in (("steerlm_core", "runtime"), ("steerlm_core.observe", "report")):
        monkeypatch.setitem(sys.modules, f"{package}.{name}", fake)
        # `from package import name` finds the attribute first, where an earlier test has imported the real one.
        monkeypatch.setattr(importlib.import_module(package), name, fake, raising=False)
    return lambda: [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]


def test_every_step_has_a_component():
    assert sorted(folder.name for folder in FOLDERS) == sorted(
        [*ITERATION_STEPS, "prepare", "gate", "confirm", "report"]
    )


@each_component
def test_folder_is_complete(folder):
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    assert metadata["name"] == folder.name
    assert metadata["stability"] in {"alpha", "beta", "stable"}
    assert metadata["dependencies"]["kubeflow"] == [{"name": "Pipelines", "version": ">=2.17.0"}]
    assert {"tags", "lastVerified"} <= metadata.keys()
    assert yaml.safe_load((folder / "OWNERS").read_text())["approvers"]


@each_component
def test_readme_has_not_drifted(folder):
    assert (folder / "README.md").read_text() == readme(folder), "run `make compile`"


@each_component
def test_module_level_imports_are_the_standard_library_and_kfp(folder):
    tree = ast.parse((folder / "component.py").read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"kfp"}


@each_component
def test_nothing_is_installed_at_run_time(folder):
    container = load(folder).component_spec.implementation.container
    assert "pip install" not in " ".join([*container.command, *container.args])
    assert container.image == "localhost/steerlm:test"


def test_gate_has_one_unnamed_output():
    gate = load(next(folder for folder in FOLDERS if folder.name == "gate"))
    assert list(gate.component_spec.outputs) == ["Output"], "kfp.local silently skips an If on a named output"


@pytest.mark.parametrize("name", ITERATION_STEPS)
def test_step_runs_in_its_iteration_and_shows_its_metrics(name, tmp_path, calls):
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    load(next(folder for folder in FOLDERS if folder.name == name)).python_func(str(tmp_path), 3, metrics)
    assert calls() == [[name, {"iteration": 3}]]
    assert metrics.metadata == {"run": str(tmp_path), "iteration": 3, "groups": 4, "reason": "a sentence"}


def test_prepare_gate_and_confirm_call_the_runtime(tmp_path, calls):
    prepare, gate, confirm = (
        load(next(folder for folder in FOLDERS if folder.name == name)).python_func
        for name in ("prepare", "gate", "confirm")
    )
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    prepare(str(tmp_path), {"seed": 1})
    assert [gate(str(tmp_path), 0, 1), gate(str(tmp_path), 0, 0)] == ["run", "stop"]
    confirm(str(tmp_path), metrics)
    assert calls() == [["prepare", {"config": {"seed": 1}}], ["confirm", {}]]
    assert metrics.metadata == {"run": str(tmp_path), "distance": 0.25}


def test_report_writes_the_document_and_names_its_run(tmp_path, calls):
    document = dsl.Markdown(uri=str(tmp_path / "document"))
    load(next(folder for folder in FOLDERS if folder.name == "report")).python_func(str(tmp_path), document)
    assert calls() == [["report", {}]]
    assert Path(document.path).read_text() == "# A run\n"
    assert document.metadata == {"run": str(tmp_path)}


def test_a_step_cannot_claim_another_run_and_shows_no_value_that_json_lacks():
    values = {"run": "other", "loss": float("inf"), "epochs": 2, "none": None, "by_group": {"a": 1}}
    assert shown(values, "s3://bucket/run", 0) == {"run": "s3://bucket/run", "iteration": 0, "epochs": 2}
