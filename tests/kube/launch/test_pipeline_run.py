"""A pipeline run as a cluster knows it: its Workflow, what its pods wait for, its training jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ForbiddenError, connect
from steerlm_core.kube.launch.pipeline_run import PipelineRun
from tests.services.kube_api import Cluster, kube_api

PODS, EVENTS, WORKFLOWS, JOBS = (each("kubeflow") for each in (paths.pods, paths.events, paths.workflows, paths.jobs))
SECRET = 'secret "steerlm-object-store" not found'


def pod(name: str, *conditions: dict[str, str], waiting: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A pod of the run: running, or without a node for these conditions, or with a container that waits."""
    state = {"waiting": waiting} if waiting else {"running": {}}
    return {
        "metadata": {"name": name, "labels": {"pipeline/runid": "run"},
                     "annotations": {"workflows.argoproj.io/node-name": f"wf(0).{name}(0)"}},
        "status": {"phase": "Pending", "conditions": conditions or [{"type": "PodScheduled", "status": "True"}],
                   "containerStatuses": [] if conditions else [{"name": "main", "state": state}], **more},
    }  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster({PODS: [], EVENTS: [], WORKFLOWS: [], JOBS: []})
    with kube_api(cluster.handler, "mine", tmp_path, monkeypatch):
        yield cluster


@pytest.fixture
def run(cluster: Cluster) -> PipelineRun:
    return PipelineRun(connect("kubeflow"), "run")


def test_a_workflow_is_found_by_the_run(cluster: Cluster, run: PipelineRun) -> None:
    assert run.workflow() is None
    cluster.objects[WORKFLOWS] = [
        {"metadata": {"name": f"steerlm-v2-{of}", "labels": {"pipeline/runid": of}}} for of in ("other", "run")
    ]
    assert run.workflow() == "steerlm-v2-run"
    assert run.has_any_of(["third", "other"])
    assert not run.has_any_of(["third"])
    assert not run.has_any_of([])


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (pod("a"), ""),
        (pod("a", {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu."}),
         "0/1 nodes: Insufficient cpu."),
        (pod("a", waiting={"reason": "CreateContainerConfigError", "message": SECRET}),
         f"container main: CreateContainerConfigError: {SECRET}"),
        (pod("a", waiting={"reason": "ContainerCreating"}),
         "container main: ContainerCreating (MountVolume.SetUp failed)"),
    ],
)  # fmt: skip
def test_what_a_pod_waits_for(cluster: Cluster, run: PipelineRun, one: dict[str, Any], words: str) -> None:
    cluster.objects[PODS] = [one, {**pod("b"), "metadata": {"name": "b", "labels": {"pipeline/runid": "other"}}}]
    cluster.objects[EVENTS] = [
        {"involvedObject": {"name": about}, "type": kind, "message": said, "metadata": {"creationTimestamp": at}}
        for about, kind, said, at in (
            ("a", "Warning", "older", "2026-01-01T00:00:00Z"),
            ("a", "Warning", "MountVolume.SetUp failed", "2026-01-01T00:00:09Z"),
            ("a", "Normal", "Scheduled", "2026-01-01T00:00:10Z"),
            ("b", "Warning", "of another", "2026-01-01T00:00:11Z"),
        )
    ]
    (found,) = run.pods()
    assert (found.name, found.node, found.waits_for) == ("a", "wf(0).a(0)", words)


def test_where_events_are_forbidden_the_pod_alone_tells(cluster: Cluster, run: PipelineRun) -> None:
    cluster.objects[PODS] = [pod("a", waiting={"reason": "ContainerCreating"})]
    cluster.forbidden.add(EVENTS)
    assert [each.waits_for for each in run.pods()] == ["container main: ContainerCreating"]


def test_pods_that_have_ended_are_left_out(cluster: Cluster, run: PipelineRun) -> None:
    cluster.objects[PODS] = [pod("a", phase="Succeeded"), pod("b", phase="Failed")]
    assert run.pods() == []


def test_the_jobs_are_those_that_the_workflow_owns(cluster: Cluster, run: PipelineRun) -> None:
    cluster.objects[JOBS] = [
        {"metadata": {"name": f"job-of-{name}", "ownerReferences": [{"kind": kind, "name": name}]}}
        for kind, name in (("Workflow", "ours"), ("Workflow", "other"), ("Pod", "ours"))
    ]
    assert run.jobs("ours") == ["job-of-ours"]
    del cluster.objects[JOBS]
    assert run.jobs("ours") == []  # no operator, no jobs


def test_what_may_not_be_asked_is_an_error(cluster: Cluster, run: PipelineRun) -> None:
    cluster.forbidden |= {WORKFLOWS, PODS, JOBS}
    for ask in (run.workflow, run.pods, lambda: run.jobs("ours")):
        with pytest.raises(ForbiddenError):
            ask()
