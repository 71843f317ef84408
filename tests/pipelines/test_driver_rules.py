"""The compiled pipeline by the rules of Kubeflow's driver, which kfp.local does not have."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from steerlm_core.kubeflow.packaged import pipeline_path
from steerlm_core.kubeflow.platform import write_pipeline
from steerlm_core.platform import PlatformConfig
from tests.pipelines.driver_rules import Call, RefusedError, Values, as_written, walk
from tests.toy.runs import Finished

ANSWERS = {"begin": "s3://bucket/run", "prepare": ["0/2", "1/2"], "gate": "run"}
PLATFORM = PlatformConfig.model_validate(
    {"image": {"name": "registry/steerlm:1"}, "steps": {"model": {"queue": "q"}}, "train_job": {"nodes": 3}}
)
AT_WORK = ["gate", "generate", "generate", "score", "score", "weigh", "train", "evaluate", "decide"]


def compiled(folder: Path, iterations: int, platform: PlatformConfig | None) -> dict[str, Any]:
    write_pipeline(folder / "pipeline.yaml", platform, iterations)
    return next(yaml.load_all((folder / "pipeline.yaml").read_text(), yaml.CSafeLoader))


@pytest.mark.parametrize("platform", [None, PLATFORM], ids=["anywhere", "platform"])
@pytest.mark.parametrize("iterations", [1, 8, 20])
def test_every_input_of_every_task_is_what_the_driver_takes(finished: Finished, tmp_path, iterations, platform):
    """One iteration of the toy world is at work; `begin`, `prepare` and `gate` themselves answer."""
    root, done = str(shutil.copytree(finished(1), tmp_path / "run")), []

    def execute(call: Call) -> Values:
        done.append(call.step)
        if call.step not in ANSWERS:
            return {}
        package = "evaluation" if call.step == "gate" else "data_processing"
        component = getattr(importlib.import_module(f"components.{package}.{call.step}"), call.step)
        return {"Output": component.python_func(**as_written(call.inputs))}

    walk(compiled(tmp_path, iterations, platform), {"root": root, "shards": 2, "max_iterations": 1}, execute)
    assert done == ["begin", "prepare", *AT_WORK, *["gate"] * (iterations - 1), "confirm", "finish", "report"]


def test_where_nothing_is_new_nothing_else_runs():
    done = walked(load(), begin="")
    assert done == ["begin"]


def walked(pipeline: dict[str, Any], **answers: object) -> list[str]:
    """Walk with answers that are given; return the steps that ran."""
    done: list[str] = []

    def execute(call: Call) -> Values:
        done.append(call.step)
        return {"Output": answers.get(call.step, ANSWERS[call.step])} if call.step in ANSWERS else {}

    walk(pipeline, {}, execute)
    return done


def load() -> dict[str, Any]:
    return next(yaml.load_all(pipeline_path().read_text(), yaml.CSafeLoader))


def task(pipeline: dict[str, Any], name: str) -> dict[str, Any]:
    """The first task of a name that people see."""
    graphs = [pipeline["root"], *pipeline["components"].values()]
    tasks = (task for graph in graphs if "dag" in graph for task in graph["dag"]["tasks"].values())
    return next(task for task in tasks if task["taskInfo"]["name"] == name)


def component(pipeline: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = pipeline["components"][task(pipeline, name)["componentRef"]["name"]]
    return found


def inputs(part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = part["inputs" if "inputs" in part else "inputDefinitions"]["parameters"]
    return found


def names_the_list_inside_its_loop(pipeline):
    inputs(task(pipeline, "generate"))["shards"] = {"componentInputParameter": "pipelinechannel--shards"}
    inputs(component(pipeline, "generate"))["shards"] = {"parameterType": "LIST"}


def wants_a_number_where_text_arrives(pipeline):
    inputs(component(pipeline, "score"))["shard"]["parameterType"] = "NUMBER_INTEGER"


def takes_what_the_graph_was_not_given(pipeline):
    inputs(task(pipeline, "weigh"))["root"] = {"componentInputParameter": "pipelinechannel--base_root"}


def is_not_given_what_it_needs(pipeline):
    del inputs(task(pipeline, "sampling"))["pipelinechannel--index"]


def makes_a_required_input_null(pipeline):
    del pipeline["root"]["inputDefinitions"]["parameters"]["max_iterations"]["defaultValue"]


def compares_a_number_with_text(pipeline):
    inputs(component(pipeline, "run"))["pipelinechannel--gate-Output"]["parameterType"] = "NUMBER_INTEGER"


def asks_for_what_the_condition_is_not_given(pipeline):
    del inputs(component(pipeline, "run"))["pipelinechannel--gate-Output"]
    del inputs(task(pipeline, "run"))["pipelinechannel--gate-Output"]


def depends_on_a_task_inside_a_loop(pipeline):
    task(pipeline, "weigh")["dependentTasks"] = ["score"]


def takes_an_output_that_is_not_there(pipeline):
    inputs(task(pipeline, "run"))["pipelinechannel--gate-Output"]["taskOutputParameter"]["outputParameterKey"] = "say"


def iterates_over_a_number(pipeline):
    for name, list_name in (
        ("iteration-0", "shards"),
        *((each, "pipelinechannel--shards") for each in ("run", "sampling")),
    ):
        inputs(component(pipeline, name))[list_name]["parameterType"] = "NUMBER_INTEGER"


def puts_a_placeholder_into_a_text(pipeline):
    inputs(task(pipeline, "begin"))["job"]["runtimeValue"]["constant"] = "job-{{$.pipeline_job_uuid}}"


def takes_its_items_from_the_text_of_the_pipeline(pipeline):
    task(pipeline, "sampling")["parameterIterator"]["items"] = {"raw": "[1, 2]"}


def has_a_condition_of_another_form(pipeline):
    task(pipeline, "run")["triggerPolicy"]["condition"] = "int(inputs.parameter_values['index']) > 1"


def takes_the_state_of_a_task(pipeline):
    inputs(task(pipeline, "report"))["root"] = {"taskFinalStatus": {"producerTask": "finish"}}


def waits_for_itself(pipeline):
    task(pipeline, "train")["dependentTasks"] = ["evaluate"]


@pytest.mark.parametrize(
    ("mutate", "answers", "words"),
    [
        (names_the_list_inside_its_loop, {}, r"/for-loop-2\[0\]/generate: input 'shards': parent DAG does not have"),
        (
            wants_a_number_where_text_arrives,
            {},
            r"/for-loop-3\[0\]/score: input 'shard': type .*NUMBER_INTEGER, got \"0/2\"",
        ),
        (takes_what_the_graph_was_not_given, {}, r"/weigh: input 'root': parent DAG does not have .*--base_root$"),
        (is_not_given_what_it_needs, {}, r"/for-loop-2: input 'pipelinechannel--index': neither value nor default"),
        (makes_a_required_input_null, {}, r"^/condition-1: input 'pipelinechannel--max_iterations': null"),
        (compares_a_number_with_text, {"gate": 1}, r"/condition-1: the condition compares '.*gate-Output', 1, with"),
        (asks_for_what_the_condition_is_not_given, {}, r"/condition-1: the condition asks for '.*gate-Output'"),
        (depends_on_a_task_inside_a_loop, {}, r"/weigh: depends on \['score'\], which do not stand in the same graph"),
        (takes_an_output_that_is_not_there, {}, r"/condition-1: input '.*gate-Output': gate has no output 'say'"),
        (iterates_over_a_number, {"prepare": 2}, r"/for-loop-2: input 'pipelinechannel--shards': 2 cannot be iterated"),
        (puts_a_placeholder_into_a_text, {}, r"^/begin: input 'job': 'job-.*' is no placeholder"),
        (takes_its_items_from_the_text_of_the_pipeline, {}, r"/for-loop-2: no rule here for the items"),
        (has_a_condition_of_another_form, {}, r"/condition-1: no rule here for the condition int"),
        (takes_the_state_of_a_task, {"gate": "stop"}, r"/report: input 'root': no rule here for .*taskFinalStatus"),
        (waits_for_itself, {}, r"/condition-1: \['decide', 'evaluate', 'train'\] wait for each other"),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_a_pipeline_that_breaks_a_rule_is_refused_by_task_and_input(mutate: Callable[[Any], None], answers, words):
    pipeline = load()
    mutate(pipeline)
    with pytest.raises(RefusedError, match=words):
        walked(pipeline, **answers)


def test_a_step_that_returns_what_it_does_not_declare_is_refused():
    with pytest.raises(RefusedError, match=r"/prepare: outputs \['Output'\] are declared, and \[\] came"):
        walk(load(), {}, lambda call: {"Output": "run"} if call.step in ("begin", "gate") else {})
