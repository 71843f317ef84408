"""`steerlm kubeflow status`: the steps of a run as it goes on, from its root or from Kubeflow, and why it failed.

The runs are recorded ones, at moments of their day.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from steerlm_core.kubeflow import follow as following
from steerlm_core.store import open_store
from steerlm_core.store.sealed import seal
from tests.kubeflow.roots import Root, with_root
from tests.services.kfp_recorded import as_of, ended, recorded

FROZEN, TERMINATED = recorded("frozen-succeeded"), recorded("terminated")
LOG = """time=2026-11-27T23:43:50.253Z level=INFO msg="capturing logs" argo=true
[KFP Executor 2026-11-27 23:43:51,000 INFO]: Looking for component `train` in --component_module_path
Traceback (most recent call last):
  File "/opt/steerlm_core/runtime.py", line 10, in run_step
    raise NonFiniteError("the loss is nan")
steerlm_core.errors.NonFiniteError: step 7: the loss is nan; lower train.learning_rate.
I1127 23:44:19.000000      17 launcher_v2.go:233] publish success.
F1127 23:44:19.000001      17 main.go:57] failed to execute component: exit status 1
time=2026-11-27T23:44:19.255Z level=INFO msg="sub-process exited" argo=true error="exit status 1"
Error: exit status 1
"""
TRAIN_POD = "steerlm-v2-vdh6r-system-container-impl-2944595844"
# What Kubeflow says of `terminated` where nobody had terminated it: its train step failed.
HISTORY = [each for each in TERMINATED["state_history"] if each.get("state") != "CANCELING"]
FAILED = {**TERMINATED, "state_history": HISTORY}


@pytest.fixture
def root(tmp_path) -> Root:
    return Root(tmp_path / "run")


def table(out: str) -> list[tuple[str, ...]]:
    """The rows of the table of steps."""
    rows = [line.rstrip() for line in out.splitlines()]
    rule = next((number for number, line in enumerate(rows) if line.endswith("─")), len(rows))
    rows = rows[rule + 1 : next((number for number in range(rule, len(rows)) if not rows[number]), len(rows))]
    return [tuple(word.strip() for word in line.split("  ") if word.strip()) for line in rows]


def follow(steerlm, api, name, *reports):
    """Follow a recorded run, with what it is like at each look."""
    run_id = api.keep_recorded(name)
    api.reports[run_id] = list(reports)
    return steerlm("kubeflow", "status", run_id, "--wait")


def test_a_run_is_followed_with_a_line_a_step_when_it_ends(steerlm, api, at):
    def seen(clock: str) -> Callable[[], dict]:
        return lambda: at(clock) or as_of(FROZEN, clock)

    moments = ("23:09:20", "23:12:00", "23:13:16", "23:13:18", "23:14:54", "23:16:50")
    done = follow(steerlm, api, "frozen-succeeded", *map(seen, (moments[0], *moments)), FROZEN)
    assert done.code == 0, done.err
    assert [line.split("  ")[0] for line in done.out.splitlines()[:9]] == [
        "begin", "prepare", "iteration-0 gate", "iteration-0 generate 2/2", "iteration-0 label 2/2",
        "iteration-0 score-prior 2/2", "iteration-0 weigh", "iteration-0 train", "iteration-0 evaluate",
    ]  # fmt: skip
    assert done.out.splitlines()[-1] == f"Run {FROZEN['run_id']} succeeded."


def test_shards_are_counted_while_they_work(steerlm, api, at):
    at("23:13:16")
    run_id = api.keep_recorded("frozen-succeeded", **as_of(FROZEN, "23:13:16"))
    done = steerlm("kubeflow", "status", run_id)
    assert done.code == 0, done.err
    assert table(done.out)[-1] == ("iteration-0", "generate 1/2", "running")


def test_a_root_that_can_be_read_tells_the_steps_to_the_end(steerlm, api, root):
    root.step("22:00:00", "22:10:00", "train", 7)  # a run before, on the same root
    root.step("23:08:00", "23:09:00", "train", 6)  # as it was being stopped
    root.step("23:10:40", "23:11:30", "prepare")
    root.step("23:12:40", "23:13:10", "generate", 0, 0)
    root.step("23:12:40", "23:13:11", "generate", 0, 1)
    root.step("23:15:30", "23:16:00", "train", 0)
    root.say("23:16:10", "warning", "evaluate", 0, message="3 of 8 groups are \x1b[31msaturated")
    root.step("23:16:05", "23:16:30", "evaluate", 0)
    root.step("23:16:50", "23:16:55", "decide", 0)
    root.say("23:16:55", "iteration", "", 0, kind="plateau", reason="It has stopped improving.")
    root.step("23:30:00", "23:31:00", "confirm")
    run_id = api.keep_recorded("frozen-succeeded", **with_root(FROZEN, root))
    done = steerlm("kubeflow", "status", run_id)
    assert [row[:-1] for row in table(done.out)] == [
        ("begin", "succeeded"),
        ("prepare", "succeeded"),
        ("iteration-0", "gate", "succeeded"),
        ("iteration-0", "generate 2/2", "succeeded"),
        ("iteration-0", "train", "succeeded"),
        ("iteration-0", "evaluate", "succeeded"),
        ("iteration-0", "decide", "succeeded"),
        ("confirm", "succeeded"),
    ]
    assert "not known" not in done.out
    done = steerlm("kubeflow", "status", run_id, "--wait")
    assert "iteration-0 evaluate: warning: 3 of 8 groups are \\x1b[31msaturated\n" in done.out
    assert "plateau\n    It has stopped improving.\n" in done.out
    assert done.out.count("iteration-0 train ") == 1


def test_a_shard_that_has_not_begun_keeps_a_step_open(steerlm, api, at, root):
    """Kubeflow knows how many there are, or who submitted the run."""
    at("23:13:12")
    root.step("23:12:40", "23:13:10", "generate", 0, 0)
    for clock, more in (("23:13:12", {}), ("23:11:50", {"shards": 3})):
        run_id = api.keep_recorded("frozen-succeeded", **as_of(FROZEN, clock), **with_root(FROZEN, root, **more))
        done = steerlm("kubeflow", "status", run_id)
        assert table(done.out)[-1] == ("iteration-0", f"generate 1/{more.get('shards', 2)}", "running")


def test_while_the_root_has_no_run_yet_kubeflow_tells(steerlm, api, at, tmp_path):
    at("23:11:00")
    run_id = api.keep_recorded("frozen-succeeded", **as_of(FROZEN, "23:11:00"), **with_root(FROZEN, str(tmp_path)))
    done = steerlm("kubeflow", "status", run_id)
    assert table(done.out) == [("begin", "succeeded", "1:09"), ("prepare", "running")]
    assert "cannot be read" not in done.out


@pytest.mark.parametrize("noted", [False, True])
def test_the_root_below_a_base_root_is_that_of_the_run(steerlm, api, at, tmp_path, noted):
    """Its own, or the unfinished one that it has taken up."""
    at("23:48:30")
    run, base = recorded("running-scheduled"), tmp_path / "base"
    name = "an-earlier-one" if noted else run["run_id"]
    root = Root(base / "runs" / name)
    root.say("23:48:20", "started", "prepare")
    held = {"job": run["run_id"], "root": f"s3://elsewhere/{name}"} if noted else {"job": "another", "root": "other"}
    open_store(str(base)).create("running.json", seal(held))
    api.keep_recorded("running-scheduled", runtime_config={"parameters": {"base_root": str(base)}})
    done = steerlm("kubeflow", "status", run["run_id"])
    assert table(done.out) == [("begin", "running"), ("prepare", "running")]


def test_a_failed_step_is_told_by_the_root(steerlm, api, root):
    root.say("23:43:55", "started", "train", 0)
    root.say("23:44:10", "failed", "train", 0, seconds=15.0, error="NonFiniteError: step 7: the loss is nan.")
    done = follow(steerlm, api, "terminated", {**FAILED, **with_root(FAILED, root)})
    assert done.code == 1
    assert f"Run {FAILED['run_id']} failed at iteration-0 train: NonFiniteError: step 7: the loss is nan.\n" in done.err


def test_a_failure_that_the_list_does_not_have_any_more_is_told_by_the_root(steerlm, api, root):
    """Of a step that was killed, the root has no end."""
    root.say("23:20:00", "started", "label", 1, 0)
    root.say("23:20:00", "started", "label", 1, 1)
    root.say("23:20:09", "failed", "label", 1, 1, seconds=9.0, error="StoreError: no answer.")
    root.say("23:20:00", "started", "score_prior", 1)
    failed = ended(as_of(FROZEN, "23:17:00"), "FAILED", FROZEN["finished_at"])
    done = follow(steerlm, api, "frozen-succeeded", {**failed, **with_root(FROZEN, root)})
    assert "failed at iteration-1 label: StoreError: no answer." in done.err
    assert "iteration-1 score-prior          broken off\n" in done.out


@pytest.mark.parametrize("interface", [False, True])
def test_a_failed_run_gives_the_words_of_the_failed_step(steerlm, api, interface):
    """Whether the host is the API itself or the interface's server before it."""
    api.interface = interface
    api.log[TRAIN_POD] = LOG
    done = follow(steerlm, api, "terminated", FAILED)
    assert done.code == 1
    expected = "failed at iteration-0 train: step 7: the loss is nan; lower train.learning_rate.\n"
    assert expected in done.err
    assert not any(word in done.err for word in ("Traceback", "main.go", "argo"))


@pytest.mark.parametrize("begun", [False, True])
def test_a_step_that_died_without_a_word_in_the_root_is_named_by_kubeflow(steerlm, api, root, begun):
    """Killed for its memory, or failed before its run was open."""
    api.log[TRAIN_POD] = LOG
    root.step("23:43:30", "23:43:50", "weigh", 0)
    if begun:
        root.say("23:43:55", "started", "train", 0)
    done = follow(steerlm, api, "terminated", {**FAILED, **with_root(FAILED, root)})
    assert done.code == 1
    assert "failed at iteration-0 train: step 7: the loss is nan; lower train.learning_rate.\n" in done.err


def test_where_the_log_cannot_be_read_the_page_is_named(steerlm, api):
    done = follow(steerlm, api, "terminated", FAILED)
    assert done.code == 1
    assert f"iteration-0 train: its log cannot be read from here; see {api.url}/#/runs/details/" in done.err


def test_a_failure_that_nobody_names_is_said_to_be_one(steerlm, api):
    done = follow(steerlm, api, "workflow-deleted", {"state": "FAILED"})
    assert "failed at a step that Kubeflow does not name" in done.err


def test_the_driver_of_what_holds_steps_together_can_fail_too(steerlm, api):
    """The driver of the condition around an iteration's steps, as if it had ended like that of generate."""
    run = as_of(recorded("driver-failed"), "23:00:30")
    for task in run["run_details"]["task_details"]:
        if task["start_time"].endswith("23:00:28Z"):
            task |= {"state": "FAILED", "end_time": "2026-11-27T23:00:34Z"}
    api.log["steerlm-v2-l6jqh-system-dag-driver-461708011"] = "F1127 23:00:33.450298      16 main.go:127] no such input"
    done = follow(steerlm, api, "driver-failed", {**run, "state": "FAILED"})
    assert "failed at iteration-0 run, in Kubeflow's driver, before it began: no such input" in done.err


def test_a_cancelled_run_is_no_success(steerlm, api):
    done = follow(steerlm, api, "terminated", {"state": "CANCELED"})
    assert done.code == 1
    assert "was terminated" in done.err


def test_an_interrupt_leaves_the_run_and_says_how_to_follow_it(steerlm, api, at):
    at("23:12:00")

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    begun = as_of(FROZEN, "23:12:00")
    done = follow(steerlm, api, "frozen-succeeded", begun, begun, interrupt, begun)
    assert done.code == 130
    assert f"follow it again with: steerlm kubeflow status {FROZEN['run_id']} --wait" in done.err
    assert "DELETE" not in str(api.calls)
    assert "terminate" not in str(api.calls)


def test_a_break_in_the_connection_is_waited_out(steerlm, api, at):
    at("23:12:00")

    def break_it():
        api.failing = 2
        return {}

    done = follow(steerlm, api, "frozen-succeeded", as_of(FROZEN, "23:12:00"), break_it, FROZEN)
    assert done.code == 0, done.err


def test_a_connection_that_stays_broken_ends_the_following_only(steerlm, api, at, monkeypatch):
    at("23:12:00")
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.05)

    def break_it():
        api.failing = 1000
        return {}

    begun = as_of(FROZEN, "23:12:00")
    done = follow(steerlm, api, "frozen-succeeded", begun, break_it, begun)
    assert done.code == 2
    assert "answers 503" in done.err
    assert f"The run goes on; follow it again with: steerlm kubeflow status {FROZEN['run_id']} --wait" in done.err


def test_a_run_that_is_deleted_while_it_is_followed_does_not_go_on(steerlm, api, at):
    at("23:12:00")

    def delete_it():
        del api.runs[FROZEN["run_id"]]
        return {}

    done = follow(steerlm, api, "frozen-succeeded", as_of(FROZEN, "23:12:00"), delete_it)
    assert done.code == 2
    assert f"{FROZEN['run_id']}: no such run on" in done.err
    assert "goes on" not in done.err


def test_a_run_whose_version_is_gone_is_shown_without_steps(steerlm, api):
    run_id = api.keep_recorded("retried-succeeded")
    api.versions.clear()
    done = steerlm("kubeflow", "status", run_id)
    assert done.code == 0, done.err
    assert table(done.out) == []
    assert done.out.startswith("Run of 0.1.0-0bb67c87 (7e077): succeeded\n")


def test_runs_are_listed_newest_first_and_as_they_stand(steerlm, api):
    names = ("running-scheduled", "terminated", "just-retried")
    run_ids = [api.keep_recorded(name) for name in names]
    done = steerlm("kubeflow", "status")
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines() if "2026-11-27" in line]
    assert [row[0] for row in rows] == run_ids
    assert [row[-4] for row in rows] == ["running", "terminated", "running"]
    assert [row[-1] for row in rows] == ["s3://steerlm/nightly", "s3://steerlm/runs/term", "s3://steerlm/runs/second"]


def test_an_unknown_experiment_or_run_is_named(steerlm, api):
    api.keep_recorded("terminated")
    done = steerlm("kubeflow", "status", "--experiment", "stererlm")
    assert done.code == 2
    assert "stererlm: no such experiment" in done.err
    assert "did you mean 'steerlm'?" in done.err
    done = steerlm("kubeflow", "status", "no-such-run")
    assert done.code == 2
    assert "no-such-run: no such run" in done.err


def test_a_task_that_a_retry_will_run_again_has_no_state_and_is_not_told(steerlm, api, at):
    at("23:44:30")
    run = as_of(TERMINATED, "23:44:19")
    for task in run["run_details"]["task_details"]:
        if task["display_name"] in ("train", "train(0)"):
            del task["state"]
    done = steerlm("kubeflow", "status", api.keep_recorded("terminated", **run))
    assert done.code == 0, done.err
    assert table(done.out)[-1] == ("iteration-0", "weigh", "succeeded", "14 s")
