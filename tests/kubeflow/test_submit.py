"""`steerlm kubeflow submit`: what is sent, what is refused before that, and what it makes of runs on the same root."""

from __future__ import annotations

import pytest
import yaml

from steerlm_core.config import load_config
from steerlm_core.kubeflow.chain import room
from steerlm_core.kubeflow.package import packaged
from tests.services.kfp_api import KfpApi
from tests.services.kfp_recorded import as_of, recorded

ROOT = "s3://bucket/run"


def submitted(api: KfpApi) -> str:
    """The id of the only run."""
    (run_id,) = api.runs
    return run_id


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


def test_another_root_has_nothing_to_do_with_runs_before(steerlm, api, config):
    api.keep_recorded("terminated")
    api.keep_recorded("running-scheduled")
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT)
    assert ended.code == 0, ended.err
    assert "a run before" not in ended.out


def test_the_last_run_on_a_root_is_told_of_and_any_that_is_at_work_is_left_alone(steerlm, api, config):
    """The last one failed; the one before it was retried since, and is at work."""
    last, before = api.keep_recorded("driver-failed"), api.keep_recorded("just-retried")
    api.runs[last]["created_at"] = "2026-11-27T23:40:00Z"
    words = ("kubeflow", "submit", config, "--root", "s3://steerlm/runs/second")
    ended = steerlm(*words)
    assert ended.code == 2
    assert f"run {before} is at work on this root already (running)" in ended.err
    assert len(api.runs) == 2
    del api.runs[before]
    assert f"has had a run before ({last}, failed)." in steerlm(*words).out


def test_submit_can_wait(steerlm, api, config):
    run = recorded("terminated")
    like_it = {key: run[key] for key in ("pipeline_spec", "state", "state_history", "run_details")}
    api.reports[""] = [as_of(run, "23:42:20"), like_it]
    ended = steerlm("kubeflow", "submit", config, "--root", ROOT, "--wait")
    assert ended.code == 1
    assert "iteration-0 generate             succeeded   22 s\n" in ended.out
    assert ended.err.endswith(
        f"Run {submitted(api)} was terminated. Another run on the same root goes on where it ended.\n"
    )
