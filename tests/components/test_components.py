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
ITERATION_STEPS = ["decide", "evaluate", "generate", "score", "train", "weigh"]
each_component = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def load(folder: Path):
    return getattr(importlib.import_module(f"components.{folder.parent.name}.{folder.name}"), folder.name)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Put the fake runtime in place, and return what was called."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "fake_runtime")
    fake = importlib.import_module("fake_runtime")
    for stands_for in fake.STANDS_FOR:
        package, _, name = f"steerlm_core.{stands_for}".rpartition(".")
        monkeypatch.setitem(sys.modules, f"{package}.{name}", fake)
        # `from package import name` finds the attribute first, where an earlier test has imported the real one.
        monkeypatch.setattr(importlib.import_module(package), name, fake, raising=False)
    return lambda: [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]


def test_every_step_has_a_component():
    assert sorted(folder.name for folder in FOLDERS) == sorted(
        [*ITERATION_STEPS, "begin", "prepare", "gate", "confirm", "finish", "report"]
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


def artifact(kind: type[dsl.Artifact], path: Path) -> dsl.Artifact:
    return kind(uri=str(path))


def call(name: str, *arguments: object) -> object:
    return load(next(folder for folder in FOLDERS if folder.name == name)).python_func(*arguments)


@pytest.mark.parametrize("name", ["evaluate", "generate", "train", "weigh"])
def test_step_runs_in_its_iteration_and_shows_its_metrics_and_where_its_output_stands(name, tmp_path, calls):
    metrics, output = artifact(dsl.Metrics, tmp_path / "metrics"), artifact(dsl.Dataset, tmp_path / "output")
    call(name, str(tmp_path), 3, metrics, output)
    assert calls() == [[name, {"iteration": 3}]]
    assert metrics.metadata == {"run": str(tmp_path), "iteration": 3, "groups": 4, "reason": "a sentence"}
    assert output.metadata["address"].startswith(f"{tmp_path}/iterations/003/")
    assert json.loads(Path(output.path).read_text()) == output.metadata


def test_score_labels_then_scores_under_the_prior_and_shows_where_both_stand(tmp_path, calls):
    outputs = [artifact(dsl.Artifact, tmp_path / name) for name in ("metrics", "labels", "prior_scores")]
    call("score", str(tmp_path), 3, *outputs)
    assert calls() == [["label", {"iteration": 3}], ["score_prior", {"iteration": 3}]]
    for name, output in zip(("labels", "prior_scores"), outputs[1:], strict=True):
        assert output.metadata == {"address": f"{tmp_path}/iterations/003/{name}", "run": str(tmp_path), "iteration": 3}


def test_a_shard_does_its_share(tmp_path, calls):
    metrics, output = artifact(dsl.Metrics, tmp_path / "metrics"), artifact(dsl.Dataset, tmp_path / "output")
    call("generate", str(tmp_path), 3, metrics, output, "1/3")
    call("score", str(tmp_path), 3, metrics, output, output, "2/3")
    assert calls() == [
        ["generate", {"iteration": 3, "shard": "1/3"}],
        ["label", {"iteration": 3, "shard": "2/3"}],
        ["score_prior", {"iteration": 3, "shard": "2/3"}],
    ]


def test_decide_shows_its_metrics_and_the_report_so_far(tmp_path, calls):
    metrics, document = artifact(dsl.Metrics, tmp_path / "metrics"), artifact(dsl.HTML, tmp_path / "document")
    call("decide", str(tmp_path), 3, metrics, document)
    assert calls() == [["decide", {"iteration": 3}]]
    assert metrics.metadata == {"run": str(tmp_path), "iteration": 3, "groups": 4, "reason": "a sentence"}
    assert document.metadata == {"run": str(tmp_path), "iteration": 3}
    assert Path(document.path).read_text() == f"<title>{tmp_path} 3</title>"


def test_the_steps_outside_of_iterations_call_the_runtime(tmp_path, calls):
    root, metrics = str(tmp_path), artifact(dsl.Metrics, tmp_path / "metrics")
    assert call("begin", "job-1", root, "", {"seed": 1}, "", 2, 8) == root
    assert call("prepare", root, 2) == ["0/2", "1/2"]
    assert [call("gate", root, 0, 1), call("gate", root, 1, 1)] == ["run", "stop"]
    call("confirm", root, metrics)
    assert metrics.metadata == {"run": root, "distance": 0.25}
    metrics.metadata.clear()
    call("finish", root, 8, metrics)
    assert metrics.metadata == {"run": root, "promoted": False, "words": "Not promoted."}
    assert [name for name, _ in calls()] == ["begin", "prepare", "confirm", "finish"]
    assert calls()[0][1] == {"config": {"seed": 1}, "config_uri": "", "max_iterations": 2, "room": 8}


def test_report_writes_both_documents_and_names_its_run(tmp_path, calls):
    page, summary = artifact(dsl.HTML, tmp_path / "page"), artifact(dsl.Markdown, tmp_path / "summary")
    call("report", str(tmp_path), page, summary)
    assert calls() == [["report", {}]]
    assert Path(page.path).read_text() == f"<title>{tmp_path} None</title>"
    assert Path(summary.path).read_text() == "# A run\n"
    assert page.metadata == summary.metadata == {"run": str(tmp_path)}


def test_a_step_cannot_claim_another_run_and_shows_no_value_that_json_lacks():
    values = {"run": "other", "loss": float("inf"), "epochs": 2, "none": None, "by_group": {"a": 1}}
    assert shown(values, "s3://bucket/run", 0) == {"run": "s3://bucket/run", "iteration": 0, "epochs": 2}
