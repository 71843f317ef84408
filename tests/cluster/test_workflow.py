"""The launcher as a pod of a pipeline: its Workflow owns the job, and a terminated Workflow ends it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steerlm_core.platform import INLINE, inline, load_platform
from steerlm_core.store import open_store
from steerlm_core.store.copy import copy_run
from tests.cluster.kit import IMAGE, kubectl, objects
from tests.cluster.place import LAUNCHER, SECRET, Place
from tests.cluster.table import Table
from tests.services.s3 import BUCKET, S3Server
from tests.waiting import until

# Of Argo's own definition the launcher sees name, uid and two fields of the spec.
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "workflows.argoproj.io"},
    "spec": {
        "group": "argoproj.io", "scope": "Namespaced",
        "names": {"kind": "Workflow", "plural": "workflows", "singular": "workflow"},
        "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}],
    },
}  # fmt: skip


def workflow(place: Place, name: str) -> dict[str, Any]:
    place.apply({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
                 "metadata": {"name": name, "namespace": place.name}, "spec": {}})  # fmt: skip
    found: dict[str, Any] = json.loads(kubectl("-n", place.name, "get", "workflow", name, "-o", "json"))
    return found


def launcher_pod(place: Place, name: str, owner: dict[str, Any], root: str, s3: S3Server) -> None:
    """The step's pod as Argo makes it: owned by its Workflow, with the platform that the pipeline was compiled with."""
    reference = {key: owner[key] for key in ("apiVersion", "kind")} | {
        key: owner["metadata"][key] for key in ("name", "uid")
    }
    platform = load_platform(place.platform("workflow", image=""))  # training pods take the launcher's own image
    environment = {INLINE: inline(platform), "HOME": "/tmp", "AWS_ENDPOINT_URL_S3": s3.endpoint,
                   "AWS_REGION": "us-east-1"}  # fmt: skip
    command = ["python3", "-m", "steerlm_core.cli", "step", "train", "--root", root, "--iteration", "0"]
    place.apply({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": place.name, "ownerReferences": [reference]},
        "spec": {
            "serviceAccountName": LAUNCHER, "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": command,
                "env": [{"name": key, "value": value} for key, value in environment.items()],
                "envFrom": [{"secretRef": {"name": SECRET}}],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })  # fmt: skip
    until(f"{name} runs", lambda: _phase(place, name) != "Pending", 60)


def test_a_terminated_workflow_ends_its_job_at_once_also_one_that_it_has_adopted(
    place: Place, prepared: Callable[[int], Path], pod_s3: S3Server, table: Table
) -> None:
    place.apply(CRD)
    kubectl("wait", "--for=condition=Established", "crd/workflows.argoproj.io", "--timeout=30s")
    first, second = (f"pipeline-{uuid.uuid4().hex[:6]}" for _ in range(2))
    root = f"s3://{BUCKET}/{first}"
    copy_run(open_store(str(prepared(100_000))), open_store(root), lambda done, of, unit: None)
    owner = workflow(place, first)
    launcher_pod(place, first, owner, root, pod_s3)
    until("training", lambda: "training runs" in _log(place, first), 240)
    (job,) = (job for job in objects("pytorchjobs", place.name) if _owners(job) == [first])
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": first, "uid": owner["metadata"]["uid"]}
    ]
    kubectl("-n", place.name, "delete", "pod", first)  # SIGTERM: the job goes on
    launcher_pod(place, second, workflow(place, second), root, pod_s3)
    until("adopted", lambda: _owners(_job(place, job)) == [first, second], 60)
    until("training", lambda: "training runs" in _log(place, second), 60)
    start = time.monotonic()
    patch = '{"spec": {"activeDeadlineSeconds": 0}}'
    kubectl("-n", place.name, "patch", "workflow", second, "--type=merge", "-p", patch)
    until("the job is deleted", lambda: _job(place, job) is None, 60, 0.2)
    seconds = time.monotonic() - start
    until("no pod runs", lambda: not _running(place, job["metadata"]["name"]), 30)
    until("the launcher has ended", lambda: _phase(place, second) == "Failed", 30)
    message = _log(place, second).splitlines()[-1].removeprefix("error: ")
    assert "its Workflow was terminated, and the job was deleted" in message
    place.tells_no_credential([_log(place, second), kubectl("-n", place.name, "get", "workflows", "-o", "json")])
    table.row("the run is terminated", "terminated", message, seconds, "the job is deleted, before SIGTERM comes")
    kubectl("-n", place.name, "delete", "pod", second, "--wait=false")


def _log(place: Place, name: str) -> str:
    return kubectl("-n", place.name, "logs", name)


def _phase(place: Place, name: str) -> str:
    return kubectl("-n", place.name, "get", "pod", name, "-o", "jsonpath={.status.phase}")


def _job(place: Place, job: dict[str, Any]) -> dict[str, Any] | None:
    """The job as it is now, if it is the same."""
    uid = job["metadata"]["uid"]
    return next((each for each in objects("pytorchjobs", place.name) if each["metadata"]["uid"] == uid), None)


def _owners(job: dict[str, Any] | None) -> list[str]:
    return [owner["name"] for owner in job["metadata"].get("ownerReferences", [])] if job else []


def _running(place: Place, name: str) -> list[str]:
    pods = objects("pods", place.name, "-l", f"training.kubeflow.org/job-name={name}")
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]
