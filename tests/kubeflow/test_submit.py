"""`steerlm kubeflow submit` and `status`: what is sent, what is refused before that, and how a run is followed."""

from __future__ import annotations

import os
import signal

import pytest
import yaml

from steerlm_core.config import load_config
from steerlm_core.kubeflow import follow as following
from steerlm_core.kubeflow.chain import room
from steerlm_core.kubeflow.package import packaged
from tests.services.kfp_api import KfpApi, node, report

ROOT = "s3://bucket/run"
LOG = """[KFP Executor 2026-01-01 00:00:30,000 INFO]: Looking for component `train` in --component_module_path
Traceback (most recent call last):
  File "/opt/steerlm_core/runtime.py", line 10, in run_step
    raise NonFiniteError("the loss is nan")
steerlm_core.errors.NonFiniteError: step 7: the loss is nan; lower train.learning_rate.
I0101 00:00:31.000000      17 launcher_v2.go:233] publish success.
F0101 00:00:31.000001      17 main.go:57] failed to execute component: exit status 1
"""


def submitted(api: KfpApi) -> str:
    """The id of the only run."""
    (run_id,) = api.runs
    return run_id


def worked(upto: str = "SUCCEEDED", last: int | None = 90) -> list[dict]:
    """Nodes of a run: prepare, and iterations 0 and 1 to their first steps."""
    return [
        node("root-driver", "SUCCEEDED", 0, 1),
        node("prepare-driver", "SUCCEEDED", 1, 2),
        node("prepare", "SUCCEEDED", 2, 20, below="11"),
        node("executor", "SUCCEEDED", 3, 20),
        node("steerlm-v2-iteration", "SUCCEEDED", 20, 60),
        node("gate", "SUCCEEDED", 21, 22, below="12"),
        node("condition-1", "SUCCEEDED", 22, 60),
        node("generate", "SUCCEEDED", 25, 55, below="13"),
        node("steerlm-v2-iteration-1", upto, 60, last),
        node("gate", "SUCCEEDED", 61, 62, below="14"),
        node("generate", upto, 65, last, below="15"),
        node("label", "SKIPPED", 66, 66),
    ]


def test_what_is_sent_is_what_the_pipeline_takes(steerlm, api, config):
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT, "--shards", 2)
    assert ended.code == 0, ended.err
    run = api.runs[submitted(api)]
    sent = run["runtime_config"]["parameters"]
    assert set(sent) <= set(packaged().inputs)
    assert (sent["root"], sent["shards"], sent["max_iterations"]) == (ROOT, 2, 2)
    assert sent["config"] == load_config(config).model_dump(mode="json", exclude_none=True)
    assert "policy" not in sent["config"]["models"]
    assert "'enableCache': True" not in str(run["pipeline_spec"])
    assert f"{api.url}/#/runs/details/{run['run_id']}" in ended.out
    assert f"steerlm kubeflow status {run['run_id']} --wait" in ended.out
    assert run["display_name"].startswith("tiny ")
    assert [each["display_name"] for each in api.experiments.values()] == ["steerlm"]


def test_a_configuration_by_address_is_sent_as_one(steerlm, api):
    uri = "s3://bucket/tiny.yaml"
    ended = steerlm("kubeflow", "submit", "--config-uri", uri, "--base-root", "s3://bucket/runs", "--set", "shards=3")
    assert ended.code == 0, ended.err
    sent = api.runs[submitted(api)]["runtime_config"]["parameters"]
    assert sent == {"config_uri": uri, "base_root": "s3://bucket/runs", "shards": 3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--root", ROOT, "--set", "max_iteration=3"], "did you mean 'max_iterations'?"),
        (["--root", ROOT, "--set", "shards=two"], "not JSON"),
        (["--root", ROOT, "--set", "shards=2.5"], "shards: 2.5 is no NUMBER_INTEGER"),
        (["--root", ROOT, "--set", "shards"], "NAME=VALUE"),
        (["--root", ROOT, "--base-root", "s3://b/r"], "one of --root and --base-root"),
        ([], "one of --root and --base-root"),
        (["--root", "runs/here"], "--root runs/here: give s3://"),
        (["--root", ROOT, "--config-uri", "s3://b/c.yaml"], "one of CONFIG and --config-uri"),
    ],
)
def test_a_mistake_is_explained_before_any_call(steerlm, api, config, words, said):
    ended = steerlm("kubeflow", "submit", config, *words)
    assert ended.code == 2
    assert said in ended.err
    assert api.calls == []


def test_a_pipeline_has_room_for_the_iterations(steerlm, api, config):
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT, "--max-iterations", 3)
    assert ended.code == 0, ended.err
    run = api.runs[submitted(api)]
    assert room(run["pipeline_spec"]["components"]) == 3
    assert run["runtime_config"]["parameters"]["max_iterations"] == 3


def test_the_platform_sets_the_pods(steerlm, api, config, tmp_path):
    platform = tmp_path / "platform.yaml"
    platform.write_text("{object_store: {endpoint: 'http://store:9000'}, steps: {service_account: ours}}")
    words = ("kubeflow", "submit", config, "--root", ROOT, "--platform", platform, "--image", "registry/steerlm:1")
    ended = steerlm(*words)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    run = api.runs[submitted(api)]
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert {each["container"]["image"] for each in executors.values()} == {"registry/steerlm:1"}
    kubernetes = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert kubernetes.keys() == executors.keys()
    assert "http://store:9000" in str(executors)
    assert run["service_account"] == "ours"


def test_without_an_image_it_warns(steerlm, api, config):
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT)
    assert "warning: no image of the steps is named" in ended.err
    assert api.runs[submitted(api)]["service_account"] == "pipeline-runner"


def test_a_mistake_in_the_configuration_is_explained_before_any_call(steerlm, api, config):
    config.write_text(config.read_text().replace("max_iterations", "max_iteration"))
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT)
    assert ended.code == 2
    assert "max_iterations" in ended.err
    assert api.calls == []


def test_a_file_of_this_machine_is_warned_of(steerlm, api, config, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "Tell me of thing {index}."}}\n' for index in range(400)))
    config.write_text(config.read_text() + yaml.safe_dump({"prompts": {"source": str(prompts)}}))
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT)
    assert ended.code == 0, ended.err
    assert "warning: prompts.source" in ended.err


def test_what_only_pods_see_can_be_left_unchecked(steerlm, api, config):
    config.write_text(config.read_text().replace("embedded:stories", "/models/prior"))
    words = ("kubeflow", "submit", config, "--root", ROOT)
    refused = steerlm(*words)
    assert refused.code == 2
    assert "/models/prior" in refused.err
    assert api.calls == []
    assert steerlm(*words, "--no-check").code == 0


def test_the_same_root_goes_on_and_says_so(steerlm, api, config):
    steerlm("kubeflow", "submit", config, "--root", ROOT)
    first = submitted(api)
    api.runs[first]["state"] = "FAILED"
    again = steerlm("kubeflow", "submit", config, "--root", ROOT)
    assert again.code == 0
    assert f"has had a run before ({first}, failed): this one goes on where that ended" in again.out
    assert len(api.runs) == 2
    other = steerlm("kubeflow", "submit", config, "--root", ROOT + "-2")
    assert other.code == 0, other.err
    assert "a run before" not in other.out


def test_a_root_that_is_being_worked_on_is_left_alone(steerlm, api, config):
    steerlm("kubeflow", "submit", config, "--root", ROOT)
    first = submitted(api)
    api.runs[first]["state"] = "RUNNING"
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT)
    assert ended.code == 2
    assert f"status {first} --wait" in ended.err
    assert len(api.runs) == 1


def follow(steerlm, api, config, *reports):
    """Submit, then follow the run with what it is like at each look."""
    steerlm("kubeflow", "submit", config, "--root", ROOT)
    api.reports[submitted(api)] = list(reports)
    return steerlm("kubeflow", "status", submitted(api), "--wait")


def test_a_run_is_followed_with_a_line_a_step(steerlm, api, config):
    begun = report("RUNNING", *worked("RUNNING", None)[:8])
    ended = follow(steerlm, api, config, begun, begun, report("SUCCEEDED", *worked()))
    assert ended.code == 0, ended.err
    steps = [line.split() for line in ended.out.splitlines()[:-1]]
    assert steps == [
        ["prepare", "succeeded", "18", "s"],
        ["iteration-0", "gate", "succeeded", "1.0", "s"],
        ["iteration-0", "generate", "succeeded", "30", "s"],
        ["iteration-1", "gate", "succeeded", "1.0", "s"],
        ["iteration-1", "generate", "succeeded", "25", "s"],
    ]
    assert ended.out.splitlines()[-1] == f"Run {submitted(api)} succeeded."


def test_every_shard_of_a_step_has_its_line(steerlm, api, config):
    shards = [node("generate", "SUCCEEDED", 2, 9, below="21"), node("generate", "SUCCEEDED", 2, 9, below="22")]
    ended = follow(steerlm, api, config, report("RUNNING", *shards), report("SUCCEEDED", *shards))
    assert ended.out.count("generate") == 2


@pytest.mark.parametrize("interface", [False, True])
def test_a_failed_run_gives_the_words_of_the_failed_step(steerlm, api, config, interface):
    """Whether the host is the API itself or the interface's server before it."""
    api.interface = interface
    api.log["steerlm-v2-abcde-system-container-impl-15"] = LOG
    ended = follow(steerlm, api, config, report("FAILED", *worked("FAILED")))
    assert ended.code == 1
    expected = "failed at iteration-1 generate: step 7: the loss is nan; lower train.learning_rate.\n"
    assert expected in ended.err
    assert "Traceback" not in ended.err
    assert "main.go" not in ended.err


def test_where_the_log_cannot_be_read_the_page_is_named(steerlm, api, config):
    ended = follow(steerlm, api, config, report("FAILED", *worked("FAILED")))
    assert ended.code == 1
    assert f"iteration-1 generate: its log cannot be read from here; see {api.url}/#/runs/details/" in ended.err


def test_a_cancelled_run_is_no_success(steerlm, api, config):
    ended = follow(steerlm, api, config, report("CANCELED", *worked("FAILED")))
    assert ended.code == 1
    assert "was canceled" in ended.err


def test_an_interrupt_leaves_the_run_and_says_how_to_follow_it(steerlm, api, config):
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        return report("RUNNING")

    ended = follow(steerlm, api, config, report("RUNNING"), interrupt, report("RUNNING"))
    assert ended.code == 130
    assert f"follow it again with: steerlm kubeflow status {submitted(api)} --wait" in ended.err
    assert "DELETE" not in str(api.calls)
    assert "terminate" not in str(api.calls)


def test_a_break_in_the_connection_is_waited_out(steerlm, api, config):
    def break_it():
        api.failing = 2
        return report("RUNNING")

    ended = follow(steerlm, api, config, report("RUNNING"), break_it, report("SUCCEEDED"))
    assert ended.code == 0, ended.err


def test_a_connection_that_stays_broken_ends_the_following_only(steerlm, api, config, monkeypatch):
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.05)

    def break_it():
        api.failing = 1000
        return report("RUNNING")

    ended = follow(steerlm, api, config, report("RUNNING"), break_it, report("RUNNING"))
    assert ended.code == 2
    assert "answers 503" in ended.err
    assert f"The run goes on; follow it again with: steerlm kubeflow status {submitted(api)} --wait" in ended.err


def test_submit_can_wait(steerlm, api, config):
    api.reports[""] = [report("RUNNING"), report("SUCCEEDED")]
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT, "--wait")
    assert ended.code == 0, ended.err
    assert ended.out.endswith(f"Run {submitted(api)} succeeded.\n")


def test_a_scheduled_run_has_the_names_of_its_version(steerlm, api, config):
    steerlm("kubeflow", "upload")
    steerlm("kubeflow", "submit", config, "--root", ROOT)
    (version,) = api.versions.values()
    run = api.runs[submitted(api)]
    del run["pipeline_spec"]
    run["pipeline_version_reference"] = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    api.reports[run["run_id"]] = [report("SUCCEEDED", *worked())]
    ended = steerlm("kubeflow", "status", run["run_id"])
    assert "iteration-1" in ended.out


def test_a_run_whose_version_is_gone_is_shown_without_steps(steerlm, api, config):
    steerlm("kubeflow", "submit", config, "--root", ROOT)
    run = api.runs[submitted(api)]
    del run["pipeline_spec"]
    run["pipeline_version_reference"] = {"pipeline_id": "gone", "pipeline_version_id": "gone"}
    ended = steerlm("kubeflow", "status", run["run_id"])
    assert ended.code == 0, ended.err
    assert "pending" in ended.out


def test_runs_are_listed_newest_first(steerlm, api, config):
    for name in ("one", "two"):
        steerlm("kubeflow", "submit", config, "--root", f"s3://bucket/{name}")
    ended = steerlm("kubeflow", "status")
    assert ended.code == 0
    assert ended.out.index("s3://bucket/two") < ended.out.index("s3://bucket/one")


def test_a_run_shows_its_steps(steerlm, api, config):
    steerlm("kubeflow", "submit", config, "--root", ROOT)
    api.reports[submitted(api)] = [report("RUNNING", *worked("RUNNING", None))]
    ended = steerlm("kubeflow", "status", submitted(api))
    assert ended.code == 0, ended.err
    assert [line.split() for line in ended.out.splitlines() if "iteration-1" in line] == [
        ["iteration-1", "gate", "succeeded", "1.0", "s"],
        ["iteration-1", "generate", "running"],
    ]


def test_an_unknown_experiment_or_run_is_named(steerlm, api, config):
    steerlm("kubeflow", "submit", config, "--root", ROOT, "--experiment", "nightly")
    ended = steerlm("kubeflow", "status", "--experiment", "nihgtly")
    assert ended.code == 2
    assert "nihgtly: no such experiment" in ended.err
    assert "did you mean 'nightly'?" in ended.err
    ended = steerlm("kubeflow", "status", "no-such-run")
    assert ended.code == 2
    assert "no-such-run: no such run" in ended.err
