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
from kfp import local

from pipelines.steerlm_v2.pipeline import COMPILED, ITERATIONS, compile_to
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import ConfigError, DataError, RunStateError
from steerlm_core.kubeflow.local_runner import run_under_kfp_local
from steerlm_core.kubeflow.package import packaged, plain
from steerlm_core.kubeflow.packaged import load_pipeline, pipeline_path
from steerlm_core.store import open_store

COMPONENTS = ["generate", "score", "weigh", "train", "evaluate", "decide"]
STEPS = ["generate", "label", "score_prior", "weigh", "train", "evaluate", "decide"]
AROUND = ["begin", "prepare", "gate", "confirm", "finish", "report"]
FAKES = Path(__file__).parents[1] / "fake_runtime"


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


def test_no_task_is_cached(compiled):
    tasks = [(name, task) for graph in dags(compiled) for name, task in graph.items()]
    assert {name for name, _ in tasks} >= set(COMPONENTS)
    plain_graphs = ("condition", "for")
    assert not [name for name, task in tasks if name.split("-")[0] not in plain_graphs and task["cachingOptions"]]


def test_nothing_runs_where_there_is_nothing_new(compiled):
    tasks = compiled["root"]["dag"]["tasks"]
    assert sorted(task["taskInfo"]["name"] for task in tasks.values()) == ["begin", "something-new"]
    (condition,) = (task["triggerPolicy"]["condition"] for task in tasks.values() if "triggerPolicy" in task)
    assert condition == "inputs.parameter_values['pipelinechannel--begin-Output'] != ''"


def test_iterations_form_a_chain_between_prepare_confirm_finish_and_report(compiled):
    (tasks,) = (graph for graph in dags(compiled) if "prepare" in graph)
    before = {task["taskInfo"]["name"]: task.get("dependentTasks", []) for task in tasks.values()}
    shown = {name: task["taskInfo"]["name"] for name, task in tasks.items()}
    chain = ["prepare", *(f"iteration-{index}" for index in range(ITERATIONS)), "confirm", "finish", "report"]
    assert sorted(before) == sorted(chain)
    for first, then in itertools.pairwise(chain):
        assert first in [shown[name] for name in before[then]]


def test_an_iteration_is_a_gate_and_the_steps_in_their_order(compiled):
    loops = {"for-loop-2": "sampling", "for-loop-3": "scoring"}
    conditions = [graph for graph in dags(compiled) if "weigh" in graph]
    assert len(conditions) == 1, "all iterations are of one component"
    before = {name: sorted(task.get("dependentTasks", [])) for name, task in conditions[0].items()}
    assert {name: conditions[0][name]["taskInfo"]["name"] for name in loops} == loops
    assert before == {
        "for-loop-2": [],
        "for-loop-3": ["for-loop-2"],
        "weigh": ["for-loop-3"],
        "train": ["weigh"],
        "evaluate": ["train"],
        "decide": ["evaluate"],
    }
    inside = [sorted(graph) for graph in dags(compiled) if {"generate", "score"} & set(graph)]
    assert inside == [["generate"], ["score"]]
    triggers = [
        task["triggerPolicy"]["condition"]
        for graph in dags(compiled)
        for task in graph.values()
        if "triggerPolicy" in task
    ]
    assert triggers.count("inputs.parameter_values['pipelinechannel--gate-Output'] == 'run'") == 1


def test_every_step_has_one_component_and_one_executor(compiled):
    steps = {name for name, component in compiled["components"].items() if "executorLabel" in component}
    assert steps == {f"comp-{step}" for step in (*COMPONENTS, *AROUND)}
    assert len(compiled["deploymentSpec"]["executors"]) == len(steps)


def test_the_packaged_pipeline_is_found_and_tells_its_room():
    assert pipeline_path() == COMPILED
    assert packaged().room == ITERATIONS


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
    arrived = RunConfig.model_validate(as_kubeflow_numbers(json.loads(json.dumps(plain(given)))))
    assert arrived == given
    assert arrived.digest() == given.digest()


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A root for runs whose steps use the fake runtime, in an empty working directory."""
    monkeypatch.setenv("PYTHONPATH", str(FAKES), prepend=os.pathsep)
    monkeypatch.syspath_prepend(FAKES)
    fake = importlib.import_module("fake_runtime")
    for name in ("run", "runtime"):
        monkeypatch.setitem(sys.modules, f"steerlm_core.{name}", fake)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "run"


def called(root: Path) -> list[str]:
    rows = [json.loads(line) for line in (root / "calls.jsonl").read_text().splitlines()]
    return [f"{name} {arguments['iteration']}" if "iteration" in arguments else name for name, arguments in rows]


def test_runs_iterations_until_the_run_decides_to_stop(root, monkeypatch, capfd, recwarn):
    monkeypatch.setenv("FAKE_STOP_AT", "1")
    run_under_kfp_local(open_store(str(root)), config())
    names = called(root)
    assert sorted(names[2:-3]) == sorted(f"{step} {iteration}" for iteration in (0, 1) for step in STEPS)
    assert [*names[:2], names[8], *names[15:]] == [
        "begin", "prepare", "decide 0", "decide 1", "confirm", "finish", "report",
    ]  # fmt: skip
    given = json.loads((root / "calls.jsonl").read_text().splitlines()[0])[1]["config"]
    assert RunConfig.model_validate(given) == config()
    out, err = capfd.readouterr()
    assert "iteration 1: train\n    train speaks\n" in out
    assert "KFP" not in out + err
    assert not [warning for warning in recwarn if "image" in str(warning.message)]
    assert not list(Path.cwd().iterdir())


def test_shards_fan_out(root):
    run_pipeline(root, shards=3)
    rows = [json.loads(line) for line in (root / "calls.jsonl").read_text().splitlines()]
    for step in ("generate", "label", "score_prior"):
        assert sorted(arguments["shard"] for name, arguments in rows if name == step) == ["0/3", "1/3", "2/3"]
    assert [name for name, _ in rows].count("weigh") == 1


def test_where_nothing_is_new_nothing_runs(root):
    run_pipeline("", base_root=str(root))
    assert not root.exists()


@pytest.mark.long
def test_the_configuration_limits_the_iterations_unless_the_pipeline_is_told_otherwise(root):
    run_pipeline(root, max_iterations=0, config=plain(config(max_iterations=2)))
    assert [name for name in called(root) if name.startswith("decide")] == ["decide 0", "decide 1"]
    begun = json.loads((root / "calls.jsonl").read_text().splitlines()[0])[1]
    assert (begun["max_iterations"], begun["room"]) == (0, ITERATIONS)
    parameters = load_pipeline().pipeline_spec.root.input_definitions.parameters
    assert parameters["max_iterations"].default_value.number_value == 0


def run_pipeline(root: Path | str, **arguments: object) -> None:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(Path.cwd() / "outputs"))
    load_pipeline()(**{"root": str(root), "config": plain(config()), "max_iterations": 1, **arguments})


@pytest.mark.long
def test_stops_at_max_iterations_and_goes_on_when_it_is_raised(root):
    run_under_kfp_local(open_store(str(root)), config(max_iterations=1))
    assert called(root).count("decide 0") == 1
    assert "generate 1" not in called(root)
    run_under_kfp_local(open_store(str(root)), config(max_iterations=2))
    assert "decide 1" in called(root)


def test_a_users_mistake_comes_out_as_the_step_said_it(root, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_FAIL", "weigh")
    with pytest.raises(DataError) as error:
        run_under_kfp_local(open_store(str(root)), config())
    assert str(error.value) == "prompts.jsonl: 2 lines are no JSON\n  line 3: {\n\n  line 7: ["
    assert called(root)[-1] == "score_prior 0"
    assert "Traceback" not in capfd.readouterr().out


def test_a_crash_shows_the_steps_traceback(root, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "train")
    monkeypatch.setenv("FAKE_ERROR", "crash")
    with pytest.raises(
        RuntimeError, match=r"(?s)^step 'train' failed\nTraceback.*ZeroDivisionError: division by zero$"
    ):
        run_under_kfp_local(open_store(str(root)), config())


def test_a_condition_that_was_silently_skipped_is_no_success(root, monkeypatch):
    monkeypatch.setenv("FAKE_GATE", "maybe")
    with pytest.raises(RunStateError, match="reported success, but did not run every iteration"):
        run_under_kfp_local(open_store(str(root)), config(max_iterations=1))


def test_more_iterations_than_compiled_are_refused_before_anything_runs(root):
    with pytest.raises(ConfigError, match="max_iterations: 9 is more than the 8 "):
        run_under_kfp_local(open_store(str(root)), config(max_iterations=9))
    assert not root.exists()
