"""`steerlm kubeflow stop`, and a root whose last run is gone, which Kubeflow calls at work for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from steerlm_core.kube.api import paths
from steerlm_core.kubeflow import gone
from steerlm_core.kubeflow import stop as stopping
from steerlm_core.store.lease import Claim
from tests.kubeflow.cluster_objects import workflow
from tests.kubeflow.roots import Root, with_root
from tests.services.kfp_recorded import as_of, recorded

TERMINATED, DELETED = recorded("terminated"), recorded("workflow-deleted")
AT_WORK = as_of(TERMINATED, "23:44:00")
WORKFLOWS, JOBS = paths.workflows("kubeflow"), paths.jobs("kubeflow")
MISSING = "its Workflow does not exist any more"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end is given up at once."""
    monkeypatch.setattr(gone, "ENDING_SECONDS", 0.2)
    monkeypatch.setattr(stopping, "JOB_SECONDS", 0.2)


def job(name: str = "steerlm-train-1", owner: str = "steerlm-v2-vdh6r") -> dict:
    return {"metadata": {"name": name, "ownerReferences": [{"kind": "Workflow", "name": owner}]}}


@pytest.fixture
def training(api) -> str:
    """A run that trains."""
    return api.keep_recorded("terminated", **AT_WORK)


def test_a_run_is_terminated_and_its_job_waited_for(steerlm, api, training, cluster):
    """The launcher deletes the job some time after the run is asked to end."""
    cluster.objects[WORKFLOWS] = [workflow(training)]
    cluster.objects[JOBS] = [job(), job("of-another", "steerlm-v2-other")]
    answer, looks = type(cluster).answer, []

    def deleted_later(path, query):
        if path == JOBS:
            looks.append(api.runs[training]["state"])
            cluster.objects[JOBS] = cluster.objects[JOBS][:2] if len(looks) < 3 else cluster.objects[JOBS][1:]
        return answer(cluster, path, query)

    cluster.answer = deleted_later
    done = steerlm("kubeflow", "stop", training)
    assert done.code == 0, done.err
    assert done.out == f"Run {training} was stopped.\nNo training job of it is left in the namespace kubeflow.\n"
    assert looks == ["FAILED"] * 3
    assert f"POST /apis/v2beta1/runs/{training}:terminate" in api.calls
    shown = steerlm("kubeflow", "status", training)
    assert shown.out.splitlines()[0].endswith(": terminated")


@pytest.mark.usefixtures("impatient")
def test_a_job_that_stays_is_an_error_with_its_way_out(steerlm, training, cluster):
    cluster.objects[WORKFLOWS], cluster.objects[JOBS] = [workflow(training)], [job()]
    done = steerlm("kubeflow", "stop", training)
    assert done.code == 2
    assert "its training job steerlm-train-1 is still there" in done.err
    assert "kubectl delete pytorchjob -n kubeflow steerlm-train-1" in done.err


@pytest.mark.parametrize("elsewhere", [False, True])
def test_where_the_job_cannot_be_seen_that_is_said(steerlm, training, request, elsewhere):
    if elsewhere:
        request.getfixturevalue("cluster")
    done = steerlm("kubeflow", "stop", training)
    assert done.code == 0, done.err
    why = "its Workflow is not in the cluster that the kubeconfig leads to" if elsewhere else "no way into a cluster"
    assert f"was stopped.\nWhether a training job is left cannot be seen from here ({why}" in done.out


def test_a_run_that_has_ended_is_left_as_it_is(steerlm, api, cluster):
    run_id = api.keep_recorded("frozen-succeeded")
    cluster.objects[WORKFLOWS] = [workflow(run_id)]
    done = steerlm("kubeflow", "stop", run_id)
    assert done.code == 0, done.err
    assert done.out.startswith(f"Run {run_id} has ended already: succeeded.\n")
    assert "terminate" not in str(api.calls)


def test_a_run_that_ends_at_that_moment_is_no_error(steerlm, api, training, monkeypatch):
    answer = type(api).answer

    def after_its_end(self, method, path, *rest):
        if path.endswith(":terminate"):
            api.runs[training] |= TERMINATED
        return answer(self, method, path, *rest)

    monkeypatch.setattr(type(api), "answer", after_its_end)
    done = steerlm("kubeflow", "stop", training)
    assert done.code == 0, done.err
    assert f"Run {training} was stopped.\n" in done.out


@pytest.mark.usefixtures("impatient")
def test_a_run_whose_workflow_was_deleted_counts_as_gone(steerlm, api):
    """As terminate answers, where nothing else can be asked."""
    run_id = api.keep_recorded("workflow-deleted", state="RUNNING")
    api.without_workflow.add(run_id)
    done = steerlm("kubeflow", "stop", run_id)
    assert done.code == 0, done.err
    assert f"Run {run_id} counts as gone: {MISSING}. Kubeflow does not notice that" in done.out
    again = steerlm("kubeflow", "stop", run_id)
    assert again.code == 0, again.err
    assert f"Run {run_id} counts as gone: it was terminated, and does not end." in again.out


def test_another_refusal_is_told_as_it_is(steerlm, api, training):
    api.token = "another"
    done = steerlm("kubeflow", "stop", training)
    assert done.code == 2
    assert "does not accept no token (401)" in done.err


@pytest.mark.usefixtures("impatient")
def test_a_workflow_that_stays_is_an_error(steerlm, api, cluster):
    """Argo's controller does not run."""
    run_id = api.keep_recorded("workflow-deleted")
    cluster.objects[WORKFLOWS] = [workflow(run_id)]
    done = steerlm("kubeflow", "stop", run_id)
    assert done.code == 2
    assert "its Workflow has not ended yet (canceling)" in done.err


def submit(steerlm, config, root: str):
    return steerlm("kubeflow", "submit", config, "--root", root, "--no-check")


def test_a_root_is_free_again_where_the_workflow_is_not_in_the_cluster(steerlm, api, config, cluster):
    cluster.objects[WORKFLOWS] = [workflow(api.keep_recorded("frozen-succeeded"))]
    run_id = api.keep_recorded("workflow-deleted", state="RUNNING")
    done = submit(steerlm, config, "s3://steerlm/runs/first")
    assert done.code == 0, done.err
    assert f"  Run {run_id} counts as gone: {MISSING}." in done.out
    assert "  This one goes on where that ended.\n" in done.out


def test_a_run_that_is_gone_is_told_of_behind_a_later_one(steerlm, api, config, cluster):
    last = api.keep_recorded("driver-failed")
    cluster.objects[WORKFLOWS] = [workflow(last)]
    run_id = api.keep_recorded("workflow-deleted", state="RUNNING", **with_root(DELETED, "s3://steerlm/runs/second"))
    done = submit(steerlm, config, "s3://steerlm/runs/second")
    assert done.code == 0, done.err
    assert f"has had a run before ({last}, failed).\n  Run {run_id} counts as gone: {MISSING}." in done.out


def test_a_root_stays_taken_where_the_workflow_is_there(steerlm, api, config, cluster):
    run_id = api.keep_recorded("workflow-deleted", state="RUNNING")
    cluster.objects[WORKFLOWS] = [workflow(run_id)]
    done = submit(steerlm, config, "s3://steerlm/runs/first")
    assert done.code == 2
    assert f"or end it with: steerlm kubeflow stop {run_id}" in done.err


def lease(root: Root, name: str, silent: float, owner: str) -> None:
    """Have a lease of the root not renewed for so long."""
    claim = Claim(owner=owner, place="elsewhere", process="1/1", token="", renewed=3, seconds=60.0, since=0.0)
    path = Path(root.place) / "leases" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(claim.to_bytes())
    os.utime(path, (time.time() - silent, time.time() - silent))


@pytest.mark.parametrize(
    ("leases", "free"),
    [
        ({"000-train": (700.0, "pod train")}, True),
        ({"000-train": (100.0, "pod train")}, False),
        ({"000-train": (700.0, "pod train"), "000-label-0of2": (3.0, "pod label")}, False),
        ({"000-train": (700.0, "")}, False),  # was given back: between two steps
        ({"000-train": (9e9, "pod train")}, False),  # of a run before this one
        ({}, False),
    ],
)
def test_a_lease_that_ran_out_frees_the_root(steerlm, api, config, tmp_path, leases, free):
    root = Root(tmp_path / "run")
    for name, (silent, owner) in leases.items():
        lease(root, name, silent, owner)
    run_id = api.keep_recorded("terminated", **AT_WORK, **with_root(TERMINATED, root), created_at=_ago(3600))
    done = submit(steerlm, config, root.place)
    assert done.code == (0 if free else 2), done.err
    said = (
        f"Run {run_id} counts as gone: nobody has renewed the lease of its step on {root.place} (000-train: pod train)."
    )
    assert (said in done.out) == free


def _ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def test_a_run_that_is_being_terminated_is_waited_for(steerlm, api, config):
    run_id = api.keep_recorded("terminated", **AT_WORK)
    api.runs[run_id]["state"] = "CANCELING"
    api.reports[run_id] = [{}, TERMINATED]
    done = submit(steerlm, config, "s3://steerlm/runs/term")
    assert done.code == 0, done.err
    assert f"has had a run before ({run_id}, terminated)." in done.out
