"""A job that never comes to train: the launcher says why, in time, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from steerlm_core.kube.job.permissions import NEEDED, OF_WORKFLOWS, WANTED, Permission
from steerlm_core.store import open_store
from tests.cluster.conftest import Launch
from tests.cluster.kit import kubectl
from tests.cluster.launched import Launched
from tests.cluster.place import EVERYTHING, Place
from tests.cluster.table import Table
from tests.waiting import until

JOB = r"job train-\w+-\d+"


def refused(launched: Launched, kind: str, seconds: float = 90) -> str:
    """Wait for the end, which is of a class; returns the message. No pod of the job runs half a minute later."""
    assert launched.ended(seconds) == 2, launched.said
    message = next((line for _, line in launched.lines if line.startswith("error: ")), "")
    assert f": {kind}: " in message or f"error: {kind}: " in message, launched.said
    until("no pod runs", lambda: not launched.running_pods(), 30)
    assert not launched.jobs()
    return message.removeprefix("error: ")


def created_at(launched: Launched) -> float:
    """Wait for the job; one that is refused at once may be deleted again before anybody has seen it."""
    until("a job", lambda: launched.jobs() or " is over: " in launched.said, 120, 0.05)
    return time.monotonic()


def test_image_missing(launch: Launch, table: Table) -> None:
    launched = launch(platform={"image": "localhost/steerlm:nowhere", "budgets": {"image": 20}})
    start = created_at(launched)
    message = refused(launched, "image")
    # There is no registry at localhost: it refuses the connection, which another one might do for a moment.
    seconds = launched.wait_for(rf"{JOB}: pod \S+, container pytorch: .*localhost/steerlm:nowhere", 1) - start
    table.row("the image does not exist", "image", message, seconds, "ends after the budget `image`")
    assert "container pytorch: " in message
    assert "localhost/steerlm:nowhere" in message
    assert "image.pull_secrets" in message


def test_memory_limit_too_small(launch: Launch, table: Table) -> None:
    launched = launch(platform={"resources": {"memory": "200Mi"}})
    start = created_at(launched)
    message = refused(launched, "out_of_memory")
    seconds = launched.wait_for(rf"{JOB} is over: out_of_memory", 1) - start
    table.row("the memory limit is too small", "out_of_memory", message, seconds, "ends")
    assert "train_job.resources.memory" in message


def test_request_that_fits_no_node(launch: Launch, table: Table) -> None:
    launched = launch(platform={"resources": {"cpu": "100"}, "budgets": {"scheduling": 10}})
    start = created_at(launched)
    message = refused(launched, "unschedulable")
    said = launched.wait_for("Insufficient cpu", 1) - start
    table.row("the request fits no node", "unschedulable", message, said, "ends after the budget `scheduling`")
    assert "0/2 nodes are available: 2 Insufficient cpu" in message


def test_name_taken_by_another_spec(launch: Launch, place: Place, table: Table) -> None:
    first = launch(platform={"resources": {"cpu": "100"}})
    created_at(first)
    name = first.jobs()[0]["metadata"]["name"]
    first.kill()
    kubectl("-n", place.name, "annotate", "pytorchjob", name, "steerlm.dev/spec-hash=somebody-elses", "--overwrite")
    second = launch(first.root, platform={"resources": {"cpu": "100"}})
    assert second.ended(90) == 2
    message = second.lines[-1][1].removeprefix("error: ")
    assert f"job {name}: name_taken: " in message
    assert "somebody-elses" in message
    assert [job["metadata"]["annotations"]["steerlm.dev/spec-hash"] for job in second.jobs()] == ["somebody-elses"]
    first.delete_jobs()  # which nobody else would: it is somebody else's
    table.row("the job's name is taken by another spec", "name_taken", message, 0, "ends; the other job is left alone")


def test_job_suspended(launch: Launch, place: Place, table: Table) -> None:
    launched = launch(epochs=10_000, platform={"budgets": {"admission": 10}})
    launched.wait_for_step(1)
    start = time.monotonic()
    name = launched.jobs()[0]["metadata"]["name"]
    patch = '{"spec": {"runPolicy": {"suspend": true}}}'
    kubectl("-n", place.name, "patch", "pytorchjob", name, "--type=merge", "-p", patch)
    message = refused(launched, "suspended")
    said = launched.wait_for(rf"{JOB}: the job is suspended", 1)
    seconds = said - start
    assert launched.wait_for(rf"{JOB} is over: suspended", 1) > said  # after the budget, and no sooner
    table.row("the job is suspended", "suspended", message, seconds, "ends after the budget `admission`")


def test_job_suspended_and_resumed_goes_on(launch: Launch, place: Place) -> None:
    launched = launch(epochs=600)
    launched.wait_for_step(10)
    name = launched.jobs()[0]["metadata"]["name"]
    suspend = ("-n", place.name, "patch", "pytorchjob", name, "--type=merge", "-p")
    kubectl(*suspend, '{"spec": {"runPolicy": {"suspend": true}}}')
    until("no pod", lambda: not launched.pods(), 60)
    kubectl(*suspend, '{"spec": {"runPolicy": {"suspend": false}}}')
    assert launched.ended(240) == 0, launched.said
    assert [job["metadata"]["name"] for job in launched.jobs()] == [name]


@contextmanager
def quota(place: Place, **hard: str) -> Iterator[None]:
    words = ",".join(f"{key.replace('_', '.')}={value}" for key, value in hard.items())
    kubectl("-n", place.name, "create", "quota", "tight", f"--hard={words}")
    until("the quota counts", lambda: "used" in kubectl("-n", place.name, "get", "quota", "tight", "-o", "json"), 20)
    try:
        yield
    finally:
        kubectl("-n", place.name, "delete", "quota", "tight")


@contextmanager
def somebody_else(place: Place, memory: str) -> Iterator[None]:
    """Another pod of the namespace, which uses up some of its quota: what counts is what it asks for."""
    asks = {"requests": {"memory": memory, "cpu": "10m"}, "limits": {"memory": memory, "cpu": "10m"}}
    container = {
        "name": "main", "image": "localhost/pause:1", "imagePullPolicy": "Never", "resources": asks,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    secure = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    place.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "else", "namespace": place.name},
                 "spec": {"securityContext": secure, "containers": [container]}})  # fmt: skip
    try:
        yield
    finally:
        kubectl("-n", place.name, "delete", "pod", "else", "--grace-period=0", "--force")


def test_quota_that_never_fits(launch: Launch, place: Place, table: Table) -> None:
    with quota(place, requests_memory="512Mi"):
        launched = launch()
        start = created_at(launched)
        message = refused(launched, "quota")
        seconds = max(0.0, launched.wait_for(rf"{JOB} is over: quota", 1) - start)
    table.row("a quota is smaller than one pod", "quota", message, seconds, "ends")
    assert "exceeded quota: tight" in message
    assert "requests.memory=1Gi" in message


def test_quota_used_up_for_now(launch: Launch, place: Place, table: Table) -> None:
    with quota(place, requests_memory="2560Mi"), somebody_else(place, "1Gi"):
        launched = launch(platform={"budgets": {"admission": 10}})
        start = created_at(launched)
        message = refused(launched, "quota")
        said = launched.wait_for("exceeded quota", 1)
        seconds = said - start
    assert launched.wait_for(rf"{JOB} is over: quota", 1) > said  # after the budget, and no sooner
    assert "1 of 2 pods do not exist" in message
    table.row("a quota is used up", "quota", message, seconds, "ends after the budget `admission`")


def test_events_may_not_be_read(launch: Launch, place: Place, table: Table) -> None:
    place.allow([p for p in EVERYTHING if p.resource != "events"])
    try:
        with quota(place, requests_memory="512Mi"):
            launched = launch(platform={"budgets": {"admission": 10}})
            message = refused(launched, "pods_not_created")
    finally:
        place.allow(EVERYTHING)
    assert "may not list events" in launched.said
    assert "a quota that is used up" in message
    table.row(
        "the same, and events may not be read", "pods_not_created", message, None, "ends after the budget `admission`"
    )


def test_jobs_may_not_be_created(launch: Launch, place: Place, table: Table) -> None:
    place.allow([*NEEDED[1:], *WANTED, *OF_WORKFLOWS])
    assert NEEDED[0] == Permission("create", "pytorchjobs", "kubeflow.org")
    start = time.monotonic()
    try:
        launched = launch()
        message = refused(launched, "forbidden")
    finally:
        place.allow(EVERYTHING)
    seconds = time.monotonic() - start
    assert "may not create pytorchjobs" in message
    assert not list(open_store(launched.root).listing("jobs/"))
    table.row("jobs may not be created", "forbidden", message, seconds, "ends before anything is started")


@pytest.fixture
def webhook_down() -> Iterator[None]:
    """The operator, and with it the webhook that every create must pass, is gone; its test starts it again."""
    operator = ("-n", "kubeflow", "scale", "deployment", "training-operator")
    kubectl(*operator, "--replicas=0")
    until("no operator", lambda: "training-operator" not in kubectl("-n", "kubeflow", "get", "pods", "-o", "name"), 60)
    try:
        yield
    finally:
        kubectl(*operator, "--replicas=1")
        kubectl("-n", "kubeflow", "rollout", "status", "deployment", "training-operator", "--timeout=60s")


def test_webhook_down_at_create(launch: Launch, webhook_down: None, table: Table) -> None:
    start = time.monotonic()
    launched = launch()
    said = launched.wait_for("failed calling webhook", 60) - start
    kubectl("-n", "kubeflow", "scale", "deployment", "training-operator", "--replicas=1")
    assert launched.ended(240) == 0, launched.said
    assert len(launched.jobs()) == 1
    words = next(line for _, line in launched.lines if "failed calling webhook" in line)
    table.row("the operator's webhook is down at create", "", words, said, "tried again until it is there; trains")
