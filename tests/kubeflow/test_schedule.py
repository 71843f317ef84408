"""`steerlm kubeflow upload` and `schedule`: doing it twice changes nothing, and what changed is said."""

from __future__ import annotations

import pytest
import yaml

from steerlm_core import __version__
from steerlm_core.kubeflow import package
from steerlm_core.kubeflow.package import packaged

DAILY = ("--cron", "0 3 * * *", "--base-root", "s3://bucket/nightly")


def test_the_pipeline_is_uploaded_once(steerlm, api):
    first = steerlm("kubeflow", "upload")
    assert first.code == 0, first.err
    (pipeline,), (version,) = api.pipelines.values(), api.versions.values()
    assert pipeline["name"] == "steerlm-v2"
    assert version["name"] == f"{__version__}-{packaged().digest[:8]}"
    assert version["pipeline_spec"] == yaml.safe_load(packaged().path.read_text())
    where = f"{api.url}/#/pipelines/details/{pipeline['pipeline_id']}/version/{version['pipeline_version_id']}"
    assert where in first.out
    second = steerlm("kubeflow", "upload")
    assert second.code == 0
    assert "is there already" in second.out
    assert (len(api.pipelines), len(api.versions)) == (1, 1)


def test_another_platform_is_another_version_and_the_same_one_is_not(steerlm, api, tmp_path):
    platform = tmp_path / "platform.yaml"
    platform.write_text("object_store: {region: eu-west-1}")
    words = ("kubeflow", "upload", "--platform", platform, "--image")
    for image in ("registry/steerlm:1", "registry/steerlm:2", "registry/steerlm:2"):
        assert steerlm(*words, image).code == 0
    assert len(api.pipelines) == 1
    first, second = (str(version["pipeline_spec"]) for version in api.versions.values())
    assert ("steerlm:1" in first, "steerlm:2" in first) == (True, False)
    assert ("steerlm:1" in second, "steerlm:2" in second) == (False, True)


def test_uploading_an_older_one_again_says_which_is_the_latest(steerlm, api, monkeypatch, tmp_path):
    older = packaged()
    steerlm("kubeflow", "upload")
    newer = tmp_path / "pipeline.yaml"
    newer.write_text(older.path.read_text() + "# changed\n")
    with monkeypatch.context() as later:
        later.setattr(package, "pipeline_path", lambda: newer)
        version = packaged().version
        steerlm("kubeflow", "upload")
    ended = steerlm("kubeflow", "upload")
    assert "is there already" in ended.out
    assert f"follow the latest version, which is {version}" in ended.out


def test_a_version_of_this_name_made_from_something_else_is_a_conflict(steerlm, api):
    steerlm("kubeflow", "upload")
    (version,) = api.versions.values()
    version["description"] = "by hand"
    ended = steerlm("kubeflow", "upload")
    assert ended.code == 2
    assert f"the version {packaged().version} on {api.url} was made from another package; delete it" in ended.err


@pytest.mark.parametrize("late", ["pipelines", "versions"])
def test_two_uploads_at_once_are_no_error(steerlm, api, monkeypatch, late):
    """The other one gets there between our look and our upload."""
    steerlm("kubeflow", "upload")
    answer, hidden = type(api).answer, [True]

    def hides_it_once(self, method, path, *rest):
        listing = method == "GET" and path.endswith(late) and hidden
        return {} if listing and hidden.pop() else answer(self, method, path, *rest)

    monkeypatch.setattr(type(api), "answer", hides_it_once)
    ended = steerlm("kubeflow", "upload")
    assert ended.code == 0, ended.err
    assert hidden == []
    assert (len(api.pipelines), len(api.versions)) == (1, 1)


def test_a_schedule_follows_the_latest_version(steerlm, api, config):
    steerlm("kubeflow", "upload")
    ended = steerlm("kubeflow", "schedule", config, *DAILY)
    assert ended.code == 0, ended.err
    assert ended.out == "steerlm-retrain was made: at cron '0 0 3 * * *' (seconds first).\n"
    (run,), (pipeline,) = api.recurring.values(), api.pipelines.values()
    assert run["pipeline_version_reference"]["pipeline_id"] == pipeline["pipeline_id"]
    assert not run["pipeline_version_reference"].get("pipeline_version_id")
    assert (run["max_concurrency"], run["no_catchup"], run["mode"]) == ("1", True, "ENABLE")
    assert run["runtime_config"]["parameters"]["base_root"] == "s3://bucket/nightly"
    assert "root" not in run["runtime_config"]["parameters"]


def test_the_same_schedule_again_changes_nothing(steerlm, api, config):
    steerlm("kubeflow", "upload")
    steerlm("kubeflow", "schedule", config, *DAILY)
    before = dict(api.recurring)
    ended = steerlm("kubeflow", "schedule", config, *DAILY)
    assert "nothing has changed" in ended.out
    assert api.recurring == before


RECORDED = ("--config-uri", "s3://steerlm/config.yaml", "--base-root", "s3://steerlm/nightly", "--max-iterations", 1)


def test_what_a_real_kubeflow_keeps_of_a_schedule_is_known_again(steerlm, api):
    kept = api.keep_recorded_schedule()
    done = steerlm("kubeflow", "schedule", *RECORDED, "--interval", "2m")
    assert done.code == 0, done.err
    assert done.out == "steerlm-retrain is so already: every 120 s; nothing has changed.\n"
    assert list(api.recurring.values()) == [kept]


def test_what_a_real_kubeflow_keeps_of_a_schedule_is_replaced_and_deleted(steerlm, api):
    kept = api.keep_recorded_schedule()
    done = steerlm("kubeflow", "schedule", *RECORDED, "--interval", "3m")
    assert done.out == "steerlm-retrain was changed: every 180 s.\n"
    (run,) = api.recurring.values()
    assert run["recurring_run_id"] != kept["recurring_run_id"]
    reference = {key: value for key, value in run["pipeline_version_reference"].items() if value}
    assert reference == kept["pipeline_version_reference"]  # no version: the latest one at each start
    assert (run["max_concurrency"], run["no_catchup"]) == (kept["max_concurrency"], kept["no_catchup"])
    assert "was deleted" in steerlm("kubeflow", "schedule", "--delete").out
    assert api.recurring == {}


def test_the_latest_version_of_a_real_kubeflow_has_the_room_that_counts(steerlm, api):
    api.keep_recorded_schedule()
    done = steerlm("kubeflow", "schedule", *RECORDED[:-1], 9, "--interval", "2m")
    assert done.code == 2
    assert "max_iterations: 9 is more than the 8 of the uploaded version 0.1.0-0bb67c87" in done.err


@pytest.mark.parametrize(
    "words", [("--interval", "24h", *DAILY[2:]), (*DAILY, "--max-iterations", 1), (*DAILY, "--experiment", "other")]
)
def test_other_settings_replace_it(steerlm, api, config, words):
    steerlm("kubeflow", "upload")
    steerlm("kubeflow", "schedule", config, *DAILY)
    (old,) = api.recurring
    ended = steerlm("kubeflow", "schedule", config, *words)
    assert ended.code == 0, ended.err
    assert "steerlm-retrain was changed" in ended.out
    assert len(api.recurring) == 1
    assert old not in api.recurring


def test_what_an_interrupted_change_left_is_mended(steerlm, api, config):
    steerlm("kubeflow", "upload")
    steerlm("kubeflow", "schedule", config, *DAILY)
    (old,) = api.recurring.values()
    api.recurring["left"] = {**old, "recurring_run_id": "left", "description": "of other settings"}
    ended = steerlm("kubeflow", "schedule", config, *DAILY)
    assert ended.code == 0
    assert list(api.recurring) == [old["recurring_run_id"]]


def test_one_that_was_switched_off_is_switched_on(steerlm, api, config):
    steerlm("kubeflow", "upload")
    steerlm("kubeflow", "schedule", config, *DAILY)
    (run,) = api.recurring.values()
    run["mode"] = "DISABLE"
    ended = steerlm("kubeflow", "schedule", config, *DAILY)
    assert "is on again" in ended.out
    assert run["mode"] == "ENABLE"


def test_it_is_deleted_by_name_once(steerlm, api, config):
    steerlm("kubeflow", "upload")
    steerlm("kubeflow", "schedule", config, *DAILY)
    steerlm("kubeflow", "schedule", config, *DAILY, "--name", "other")
    assert "was deleted" in steerlm("kubeflow", "schedule", "--delete").out
    assert [run["display_name"] for run in api.recurring.values()] == ["other"]
    again = steerlm("kubeflow", "schedule", "--delete")
    assert (again.code, "nothing to do" in again.out) == (0, True)


def test_a_schedule_needs_an_uploaded_pipeline(steerlm, api, config):
    ended = steerlm("kubeflow", "schedule", config, *DAILY)
    assert ended.code == 2
    assert "first: steerlm kubeflow upload" in ended.err
    assert api.recurring == {}


def test_a_schedule_needs_room_for_its_iterations(steerlm, api, config):
    steerlm("kubeflow", "upload")
    ended = steerlm("kubeflow", "schedule", config, *DAILY, "--max-iterations", 3)
    assert ended.code == 2
    assert "or: steerlm kubeflow upload --max-iterations 3" in ended.err
    steerlm("kubeflow", "upload", "--max-iterations", 3)
    assert steerlm("kubeflow", "schedule", config, *DAILY, "--max-iterations", 3).code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (DAILY[2:], "one of --cron and --interval"),
        ((*DAILY, "--interval", "24h"), "one of --cron and --interval"),
        (("--cron", "0 3 * *", *DAILY[2:]), "4 fields"),
        (("--interval", "24", *DAILY[2:]), "a number with its unit"),
        (("--interval", "5s", *DAILY[2:]), "a minute or more"),
        (DAILY[:2], "--base-root: missing"),
        ((*DAILY, "--set", "shrads=2"), "did you mean 'shards'?"),
    ],
)
def test_a_mistake_is_explained_before_any_call(steerlm, api, config, words, said):
    ended = steerlm("kubeflow", "schedule", config, *words)
    assert ended.code == 2
    assert said in ended.err
    assert api.calls == []


def test_a_cron_that_kubeflow_does_not_take_is_said_in_its_words(steerlm, api, config):
    steerlm("kubeflow", "upload")
    ended = steerlm("kubeflow", "schedule", config, "--cron", "a b c d e", *DAILY[2:])
    assert ended.code == 2
    assert "Failed to parse" in ended.err
    assert api.recurring == {}
