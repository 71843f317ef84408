"""The pipeline: its compiled form, and that form run under kfp.local with a runtime that only takes notes."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.steerlm_v2.pipeline import COMPILED, ITERATIONS, compile_to
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import ConfigError, DataError, RunStateError
from steerlm_core.kubeflow.local_runner import _plain, run_under_kfp_local
from steerlm_core.kubeflow.packaged import load_pipeline, pipeline_path, room

STEPS = ["generate", "label", "score_prior", "weigh", "train", "evaluate", "decide"]
FAKES = Path(__file__).parent / "fake_runtime"


@pytest.fixture(scope="module")
def compiled() -> dict:
    return yaml.safe_load(COMPILED.read_text())


def dags(compiled):
    """Return the tasks of every graph in the pipeline."""
    components = [compiled["root"], *compiled["components"].values()]
    return [component["dag"]["tasks"] for component in components if "dag" in component]


def test_the_compiled_pipeline_has_not_drifted(tmp_path):
    compile_to(tmp_path / "pipeline.yaml")
    assert (tmp_path / "pipeline.yaml").read_text() == COMPILED.read_text(), "run `make compile`"


def test_the_compiled_pipeline_is_small():
    assert COMPILED.stat().st_size <= 300_000


def test_no_task_is_cached(compiled):
    tasks = [(name, task) for graph in dags(compiled) for name, task in graph.items()]
    steps = [name for name, task in tasks if task["componentRef"]["name"] in compiled["components"]]
    assert len(steps) >= ITERATIONS * 8
    assert not [name for name, task in tasks if name.split("-")[0] != "condition" and task["cachingOptions"]]


def test_iterations_form_a_chain_between_prepare_confirm_and_report(compiled):
    tasks = compiled["root"]["dag"]["tasks"]
    before = {task["taskInfo"]["name"]: task.get("dependentTasks", []) for task in tasks.values()}
    shown = {name: task["taskInfo"]["name"] for name, task in tasks.items()}
    chain = ["prepare", *(f"iteration-{index}" for index in range(ITERATIONS)), "confirm", "report"]
    assert sorted(before) == sorted(chain)
    for first, then in itertools.pairwise(chain):
        assert [shown[name] for name in before[then]] == [first]


def test_an_iteration_is_a_gate_and_the_steps_in_their_order(compiled):
    conditions = [graph for graph in dags(compiled) if "generate" in graph]
    before = {name: sorted(task.get("dependentTasks", [])) for name, task in conditions[0].items()}
    assert before == {
        "generate": [],
        "label": ["generate"],
        "score-prior": ["generate"],
        "weigh": ["label", "score-prior"],
        "train": ["weigh"],
        "evaluate": ["train"],
        "decide": ["evaluate"],
    }
    triggers = [
        task["triggerPolicy"]["condition"]
        for graph in dags(compiled)
        for task in graph.values()
        if "triggerPolicy" in task
    ]
    assert triggers == ["inputs.parameter_values['pipelinechannel--gate-Output'] == 'run'"] * ITERATIONS


def test_the_packaged_pipeline_is_found_and_tells_its_room():
    assert pipeline_path() == COMPILED
    assert room(load_pipeline()) == ITERATIONS


def config(**changes) -> RunConfig:
    base = {"attributes": [{"name": "mood"}], "models": {"prior": "embedded:stories"}, "max_iterations": 3}
    return parse_config(base | changes, "test")


def as_kubeflow_numbers(value):
    """What a pipeline parameter is on arrival: every number a double."""
    if isinstance(value, dict):
        return {key: as_kubeflow_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_kubeflow_numbers(item) for item in value]
    return float(value) if type(value) is int else value


def test_a_configuration_survives_kubeflows_numbers():
    given = config(prompts={"targets": [{"mood": 1}]}, train={"lora": {"rank": 4}, "zero_stage": 3})
    arrived = RunConfig.model_validate(as_kubeflow_numbers(json.loads(json.dumps(_plain(given)))))
    assert arrived == given
    assert arrived.digest() == given.digest()


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A root for runs whose steps use the fake runtime, in an empty working directory."""
    monkeypatch.setenv("PYTHONPATH", str(FAKES), prepend=os.pathsep)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setitem(sys.modules, "steerlm_core.runtime", importlib.import_module("fake_runtime"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "run"


def called(root: Path) -> list[str]:
    rows = [json.loads(line) for line in (root / "calls.jsonl").read_text().splitlines()]
    return [f"{name} {arguments['iteration']}" if "iteration" in arguments else name for name, arguments in rows]


def test_runs_iterations_until_the_run_decides_to_stop(root, monkeypatch, capfd, recwarn):
    monkeypatch.setenv("FAKE_STOP_AT", "1")
    run_under_kfp_local(str(root), config())
    names = called(root)
    assert sorted(names[1:-2]) == sorted(f"{step} {iteration}" for iteration in (0, 1) for step in STEPS)
    assert [names[0], names[7], *names[14:]] == ["prepare", "decide 0", "decide 1", "confirm", "report"]
    given = json.loads((root / "calls.jsonl").read_text().splitlines()[0])[1]["config"]
    assert RunConfig.model_validate(given) == config()
    out, err = capfd.readouterr()
    assert "iteration 1: train\n    train speaks\n" in out
    assert "KFP" not in out + err
    assert not [warning for warning in recwarn if "image" in str(warning.message)]
    assert not list(Path.cwd().iterdir())


def test_stops_at_max_iterations_and_goes_on_when_it_is_raised(root):
    run_under_kfp_local(str(root), config(max_iterations=1))
    assert called(root).count("decide 0") == 1
    assert "generate 1" not in called(root)
    run_under_kfp_local(str(root), config(max_iterations=2))
    assert "decide 1" in called(root)


def test_a_users_mistake_comes_out_as_the_step_said_it(root, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_FAIL", "weigh")
    with pytest.raises(DataError) as error:
        run_under_kfp_local(str(root), config())
    assert str(error.value) == "prompts.jsonl: 2 lines are no JSON\n  line 3: {\n\n  line 7: ["
    assert called(root)[-1] in {"label 0", "score_prior 0"}
    assert "Traceback" not in capfd.readouterr().out


def test_a_crash_shows_the_steps_traceback(root, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "train")
    monkeypatch.setenv("FAKE_ERROR", "crash")
    with pytest.raises(
        RuntimeError, match=r"(?s)^step 'train' failed\nTraceback.*ZeroDivisionError: division by zero$"
    ):
        run_under_kfp_local(str(root), config())


def test_a_condition_that_was_silently_skipped_is_no_success(root, monkeypatch):
    monkeypatch.setenv("FAKE_GATE", "maybe")
    with pytest.raises(RunStateError, match="reported success, but did not run every iteration"):
        run_under_kfp_local(str(root), config(max_iterations=1))


def test_more_iterations_than_compiled_are_refused_before_anything_runs(root):
    with pytest.raises(ConfigError, match="max_iterations: 9 is more than the 8 "):
        run_under_kfp_local(str(root), config(max_iterations=9))
    assert not root.exists()
