"""How large a run's Workflow grows: counted as Argo counts, and refused where Argo would end the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.steerlm_v2.pipeline import ITERATIONS
from steerlm_core.errors import ConfigError
from steerlm_core.kubeflow.package import Package, check_arguments, package_for, packaged
from steerlm_core.kubeflow.size import Workflow
from steerlm_core.platform import PlatformConfig
from tests.kubeflow.test_platform import PLATFORM

ROOT = Path(__file__).parents[2]
LIMIT = 1024 * 1024

# What KFP 2.17.0 on Argo 4.0.5 listed of the parts of a finished run of the pipeline, 2026-11-27.
LISTED = {
    "run": "steerlm-v2-r9rb2 steerlm-v2-r9rb2(0) root-driver root-driver(0) root root(0)",
    "step": "weigh-driver weigh-driver(0) weigh weigh(0) executor executor(0)",
    "graph": "condition-1-driver condition-1-driver(0) condition-1 condition-1(0)",
    "skipped": "condition-1-driver condition-1-driver(0) condition-1",
    "loop": "for-loop-2 for-loop-2(0) iteration-driver iteration-driver(0) iteration-iterations",
    "turn": "iteration-iterations(0:0) iteration-iterations(0:0)(0) iteration-item-driver iteration-item-driver(0) "
    "iteration-item iteration-item(0)",
}
COUNT = {part: len(names.split()) for part, names in LISTED.items()}


def pipeline(root: dict[str, Any], **graphs: dict[str, Any]) -> Workflow:
    """A pipeline of graphs: each a mapping of its tasks to what they are of, and what else they say."""

    def graph(tasks: dict[str, Any]) -> dict[str, Any]:
        return {"dag": {"tasks": {name: {"componentRef": {"name": of}} | more for name, (of, more) in tasks.items()}}}

    components = {name: graph(tasks) for name, tasks in graphs.items()} | {"step": {"executorLabel": "exec"}}
    return Workflow({"root": graph(root), "components": components}, 0, LIMIT)


STEP, LOOP, IF = ("step", {}), {"parameterIterator": {}}, {"triggerPolicy": {"condition": "…"}}


def iteration(number: int) -> tuple[str, dict[str, Any]]:
    return "iteration", {"inputs": {"parameters": {"index": {"runtimeValue": {"constant": float(number)}}}}}


@pytest.mark.parametrize(
    ("workflow", "parts"),
    [
        (pipeline({"a": STEP, "b": STEP}), {"step": 2}),
        (pipeline({"a": ("graph", {})}, graph={"a": STEP}), {"graph": 1, "step": 1}),
        (pipeline({"a": ("graph", LOOP)}, graph={"a": STEP}), {"loop": 1, "turn": 3, "step": 3}),
        (pipeline({"steerlm-v2-iteration": iteration(0), "steerlm-v2-iteration-1": iteration(1)},
                  iteration={"a": ("inside", IF)}, inside={"a": STEP}), {"graph": 3, "step": 1, "skipped": 1}),
    ],
)  # fmt: skip
def test_every_part_has_the_nodes_that_kubeflow_listed(workflow, parts):
    wanted = COUNT["run"] + sum(COUNT[part] * number for part, number in parts.items())
    assert workflow.nodes(iterations=1, shards=3) == wanted


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_an_iteration_of_the_pipeline_that_was_measured_has_the_nodes_that_were_counted(shards):
    """48 + 30 for each shard where it is at work, 13 where it is skipped."""
    measured = pipeline(
        {"steerlm-v2-iteration": iteration(0)},
        iteration={"gate": STEP, "run": ("at-work", IF)},
        **{"at-work": {"sampling": ("sampling", LOOP), "scoring": ("scoring", LOOP), "weigh": STEP, "train": STEP,
                       "evaluate": STEP, "decide": STEP}},
        sampling={"generate": STEP},
        scoring={"label": STEP, "score-prior": STEP},
    )  # fmt: skip
    assert measured.nodes(1, shards) == COUNT["run"] + 48 + 30 * shards
    assert measured.nodes(0, shards) == COUNT["run"] + 13


def test_an_iteration_is_smaller_than_the_one_that_was_measured():
    package = packaged()
    workflow = Workflow(yaml.load(package.path.read_text(), yaml.CSafeLoader), 0, LIMIT)
    assert workflow.nodes(2, 3) - workflow.nodes(1, 3) == 48 + 24 * 3 - 13


@pytest.fixture(params=[None, PLATFORM], ids=["anywhere", "platform"])
def platform(request) -> PlatformConfig | None:
    return request.param and PlatformConfig.model_validate(request.param)


@pytest.mark.parametrize(("iterations", "shards"), [(20, 1), (8, 8)])
def test_long_and_wide_runs_stay_under_a_mebibyte(tmp_path, platform, iterations, shards):
    path = package_for(tmp_path, platform, iterations=iterations).path
    pipeline = next(yaml.load_all(path.read_text(), yaml.CSafeLoader))
    size = Workflow(pipeline, path.stat().st_size, LIMIT).size(iterations, shards)
    print(f"{iterations} iterations, {shards} shards: {size} bytes")
    assert size < LIMIT


def test_the_documentation_says_how_wide_a_run_may_be(tmp_path, platform):
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs/kubeflow.md").read_text().splitlines() if line[:2] == "| "]
    header = next(row for row in rows if row[0].strip() == "most shards for")
    said = next(row for row in rows if row[0].startswith(" one compiled with" if platform else " a pipeline for any"))
    for iterations, most in zip(header[1:], said[1:], strict=True):
        package = package_for(tmp_path, platform, iterations=int(iterations.split()[0]))
        package.check_size({"shards": int(most)})
        with pytest.raises(ConfigError):
            package.check_size({"shards": int(most) + 1})


def test_no_step_carries_its_source_or_words_that_nobody_is_shown():
    spec = yaml.load(packaged().path.read_text(), yaml.CSafeLoader)
    assert "description" not in json.dumps(spec["components"])
    assert all(each["description"] for each in spec["root"]["inputDefinitions"]["parameters"].values())
    for name, executor in spec["deploymentSpec"]["executors"].items():
        command = [*executor["container"]["command"], *executor["container"]["args"]]
        assert command == [
            "python3", "-m", "steerlm_core.kubeflow.execute", "kfp.dsl.executor_main",
            "--executor_input", "{{$}}", "--function_to_execute", name.removeprefix("exec-"),
        ]  # fmt: skip


def refused(package: Package, **arguments: object) -> str:
    with pytest.raises(ConfigError) as error:
        check_arguments(package, arguments)
    return str(error.value)


def test_a_run_that_could_not_finish_is_refused_with_what_would(tmp_path):
    text = refused(package_for(tmp_path, iterations=20), max_iterations=20, shards=4)
    assert text.startswith("max_iterations 20 with shards 4: the run could not finish.")
    assert "over 1,048,576 bytes, and this one grows to about 1,2" in text
    assert "What fits: shards 3 or max_iterations 16, or a higher MAX_WORKFLOW_SIZE of Argo's" in text
    check_arguments(package_for(tmp_path, iterations=20), {"max_iterations": 20, "shards": 3})
    check_arguments(package_for(tmp_path, iterations=20), {"max_iterations": 16, "shards": 4})


def test_only_iterations_that_are_asked_for_count():
    text = refused(packaged(), shards=20)
    assert text.startswith(f"max_iterations {ITERATIONS} with shards 20")
    assert refused(packaged(), shards=20, max_iterations=0) == text
    check_arguments(packaged(), {"shards": 20, "max_iterations": 2})


def test_a_controller_that_allows_more_is_named_in_the_platform_file(tmp_path):
    platform = PlatformConfig.model_validate({"steps": {"max_workflow_size": 1_400_000}})
    check_arguments(package_for(tmp_path, platform, iterations=20), {"max_iterations": 20, "shards": 4})
    assert "What helps: a higher MAX" in refused(Package(packaged().path, 100_000), shards=1, max_iterations=1)


@pytest.mark.parametrize("command", [("compile",), ("kubeflow", "upload")], ids=" ".join)
def test_a_pipeline_that_could_not_finish_is_not_written_nor_uploaded(steerlm, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    ended = steerlm(*command, "--max-iterations", 60)
    assert ended.code == 2
    assert "max_iterations 60 with shards 1: the run could not finish." in ended.err
    assert not list(tmp_path.iterdir())


def test_submit_refuses_before_it_calls_anybody(steerlm, tmp_path, monkeypatch):
    monkeypatch.setenv("KFP_ENDPOINT", "http://nobody.invalid")
    ended = steerlm("kubeflow", "submit", _config(tmp_path), "--root", "s3://bucket/run", "--shards", 99, "--no-check")
    assert ended.code == 2
    assert "max_iterations 5 with shards 99: the run could not finish." in ended.err


def _config(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({
        "max_iterations": 5, "attributes": [{"name": "verbosity"}], "raters": {"verbosity": "word_count"},
        "models": {"prior": "embedded:stories"},
    }))  # fmt: skip
    return path
