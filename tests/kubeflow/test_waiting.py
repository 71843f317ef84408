"""A run in which nothing begins or ends: it is said, and what it waits for; and that a run is gone, where it is."""

from __future__ import annotations

import os
import signal

import pytest

from steerlm_core.kube.api import paths
from tests.kubeflow.cluster_objects import pod, workflow
from tests.kubeflow.roots import Root, with_root
from tests.services.kfp_recorded import as_of, ended, recorded

RUN, FROZEN = recorded("running-scheduled"), recorded("frozen-succeeded")
PODS, WORKFLOWS = paths.pods("kubeflow"), paths.workflows("kubeflow")
BEGIN = "steerlm-v2-9jgx7(0).root(0).begin(0).executor(0)"
DECIDE = ".root(0).condition-1(0).steerlm-v2-iteration(0).condition-1(0).decide(0).executor(0)"
SECRET = 'secret "steerlm-object-store" not found'


@pytest.fixture
def silent(api, at, cluster) -> str:
    """A run whose first step has been at work for nine minutes, for all that Kubeflow says."""
    at("23:57:05")
    cluster.objects[WORKFLOWS] = [workflow(RUN["run_id"])]
    return api.keep_recorded("running-scheduled")


def test_a_run_of_which_something_has_just_begun_is_not_silent(steerlm, api, at):
    at("23:50:04")
    assert "Nothing has begun" not in steerlm("kubeflow", "status", api.keep_recorded("running-scheduled")).out
    at("23:50:05")
    assert "Nothing has begun or ended for 2:00." in steerlm("kubeflow", "status", RUN["run_id"]).out


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (pod(RUN["run_id"], BEGIN, {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: no cpu."}),
         "begin waits (pod the-pod): 0/1 nodes: no cpu.\n"),
        (pod(RUN["run_id"], BEGIN, waiting={"reason": "CreateContainerConfigError", "message": SECRET}),
         f"begin waits (pod the-pod): container main: CreateContainerConfigError: {SECRET}.\n"),
        (pod(RUN["run_id"], BEGIN, waiting={"reason": "ImagePullBackOff", "message": "manifest unknown"}),
         "begin waits (pod the-pod): container main: ImagePullBackOff: manifest unknown.\n"),
        (pod(RUN["run_id"], BEGIN), "At work: begin (pod the-pod).\n"),
    ],
)  # fmt: skip
def test_what_it_waits_for_is_what_its_pods_say(steerlm, cluster, silent, one, said):
    cluster.objects[PODS] = [one]
    done = steerlm("kubeflow", "status", silent)
    assert f"Nothing has begun or ended for 9:00. {said}" in done.out


def test_a_driver_waits_as_well(steerlm, cluster, silent):
    node = "steerlm-v2-9jgx7(0).root(0).begin-driver(0)"
    cluster.objects[PODS] = [pod(silent, node, waiting={"reason": "ImagePullBackOff", "message": "no such host"})]
    assert "begin, the driver waits (pod the-pod): container main: Im" in steerlm("kubeflow", "status", silent).out


def test_without_a_pod_the_page_is_named(steerlm, silent):
    done = steerlm("kubeflow", "status", silent)
    assert "No pod of it is in the cluster that the kubeconfig leads to; see its page\n" in done.out


def test_where_the_cluster_may_not_be_asked_what_kubeflow_lists_is_told_and_the_page(steerlm, cluster, silent, api):
    cluster.forbidden |= {PODS, WORKFLOWS}
    api.reports[silent] = [{}, {}, ended(RUN, "SUCCEEDED", "2026-11-27T23:58:00Z")]
    done = steerlm("kubeflow", "status", silent, "--wait")
    assert "At work: begin. What its pods wait for cannot be asked from here (GET " in done.out
    assert f"; see {api.url}/#/runs/details/{silent}\n" in done.out


def said_while_following(steerlm, api, at, name: str, *looks: tuple[str, dict]) -> list[str]:
    """For how long nothing had happened when that was said, of looks at a run at some times."""
    run_id = api.keep_recorded(name)

    def at_its_time(clock: str, report: dict):
        return lambda: at(clock) or report

    reports = [at_its_time(*look) for look in looks]
    api.reports[run_id] = [reports[0], *reports, ended(recorded(name), "SUCCEEDED", "2026-11-27T23:59:00Z")]
    done = steerlm("kubeflow", "status", run_id, "--wait")
    return [line.split(". ")[0].split(" for ")[1] for line in done.out.splitlines() if line.startswith("Nothing")]


def test_it_is_said_more_and_more_seldom(steerlm, api, at):
    clocks = ("23:48:10", "23:50:06", "23:50:30", "23:52:06", "23:54:00", "23:55:06", "23:56:07")
    said = said_while_following(steerlm, api, at, "running-scheduled", *((clock, RUN) for clock in clocks))
    assert said == ["2:01", "4:01", "8:02"]


def test_it_is_said_anew_after_something_has_happened(steerlm, api, at):
    before, after = as_of(FROZEN, "23:10:00"), as_of(FROZEN, "23:12:30")
    looks = (("23:11:11", before), ("23:12:30", after), ("23:14:27", after))
    assert said_while_following(steerlm, api, at, "frozen-succeeded", *looks) == ["2:01", "2:01"]


def test_a_list_that_has_ended_is_told_by_pods_that_are_not_in_it(steerlm, api, at, cluster):
    at("23:25:00")
    run_id = api.keep_recorded("frozen-succeeded", **as_of(FROZEN, "23:24:00"))
    cluster.objects[WORKFLOWS] = [workflow(run_id)]
    cluster.objects[PODS] = [pod(run_id, f"steerlm-v2-pllrb(0){DECIDE}")]
    done = steerlm("kubeflow", "status", run_id)
    assert "for 8:16. At work: iteration-0 decide (pod the-pod). From 2026-11-27 " in done.out
    assert "on the steps are not known: Kubeflow's list ended there, as it does for good" in done.out


def test_without_a_cluster_a_list_may_have_ended(steerlm, api, at):
    at("23:25:00")
    run_id = api.keep_recorded("frozen-succeeded", **as_of(FROZEN, "23:24:00"))
    done = steerlm("kubeflow", "status", run_id)
    assert "Perhaps Kubeflow's list of the steps has ended, as it does for good once the Workflow is" in done.out


def test_a_step_at_work_tells_by_the_root_how_far_it_is(steerlm, api, at, tmp_path, cluster):
    at("23:25:00")
    root = Root(tmp_path / "run")
    root.say("23:20:00", "started", "label", 1, 1)
    root.say("23:24:50", "progress", "label", 1, 1, done=64, total=192, unit="groups")
    run_id = api.keep_recorded("frozen-succeeded", **as_of(FROZEN, "23:24:00"), **with_root(FROZEN, root))
    cluster.objects[WORKFLOWS] = [workflow(run_id)]
    cluster.objects[PODS] = [pod(run_id, f"steerlm-v2-pllrb(0){DECIDE}")]
    done = steerlm("kubeflow", "status", run_id)
    assert "for 5:00. At work: iteration-1 label, shard 1 (64/192 groups · " in done.out
    assert "not known" not in done.out


def test_a_run_without_a_workflow_is_followed_no_longer(steerlm, cluster, api, silent):
    """That cluster is Kubeflow's, since it has another run of it."""
    other = api.keep_recorded("just-retried")
    cluster.objects[WORKFLOWS] = [workflow(other)]
    shown = steerlm("kubeflow", "status", silent)
    said = f"Run {silent} counts as gone: its Workflow does not exist any more. Kubeflow does not notice that"
    assert said in shown.out
    done = steerlm("kubeflow", "status", silent, "--wait")
    assert done.code == 1
    assert said in done.err


def test_another_cluster_does_not_tell_that_a_run_is_gone(steerlm, cluster, silent, api):
    """Kubeflow was reached by an address, and the kubeconfig leads to a cluster that knows none of its runs."""
    cluster.objects[WORKFLOWS] = [workflow("of-somebody-else")]
    api.keep_recorded("just-retried")

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    api.reports[silent] = [{}, {}, interrupt]
    done = steerlm("kubeflow", "status", silent, "--wait")
    assert done.code == 130
    assert "counts as gone" not in done.out + done.err
