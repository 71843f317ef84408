"""The launcher as a pod of a pipeline: its Workflow owns the job, and a terminated Workflow ends it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steerlm_core.store import open_store
from steerlm_core.store.copy import copy_run
from tests.cluster.kit import IMAGE, kubectl, objects, until
from tests.cluster.launched import STEERLM
from tests.cluster.place import LAUNCHER, SECRET, Place
from tests.cluster.table import Table
from tests.services.s3 import BUCKET, S3Server

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


def launcher_pod(place: Place, name: str, owner: dict[str, Any], root: str, platform: Path, s3: S3Server) -> None:
    """The step's pod as Argo makes it: owned by its Workflow, with the platform file from a ConfigMap."""
    kubectl("-n", place.name, "create", "configmap", name, f"--from-file=platform.yaml={platform}")
    reference = {key: owner[key] for key in ("apiVersion", "kind")} | {
        key: owner["metadata"][key] for key in ("name", "uid")
    }
    environment = {"STEERLM_PLATFORM": "/etc/steerlm/platform.yaml", "HOME": "/tmp",
                   "AWS_ENDPOINT_URL_S3": s3.endpoint, "AWS_REGION": "us-east-1"}  # fmt: skip
    command = ["python3", *STEERLM[1:], "step", "train", "--root", root, "--iteration", "0", "--backend", "pytorchjob"]
    place.apply({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": place.name, "ownerReferences": [reference]},
        "spec": {
            "serviceAccountName": LAUNCHER, "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "platform", "configMap": {"name": name}}],
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": command,
                "env": [{"name": key, "value": value} for key, value in environment.items()],
                "envFrom": [{"secretRef": {"name": SECRET}}],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "platform", "mountPath": "/etc/steerlm"}],
            }],
        },
    })  # fmt: skip


def test_a_terminated_workflow_ends_its_job_at_once(
    place: Place, prepared: Callable[[int], Path], pod_s3: S3Server, table: Table
) -> None:
    place.apply(CRD)
    kubectl("wait", "--for=condition=Established", "crd/workflows.argoproj.io", "--timeout=30s")
    name = f"pipeline-{uuid.uuid4().hex[:6]}"
    root = f"s3://{BUCKET}/{name}"
    copy_run(open_store(str(prepared(100_000))), open_store(root), lambda done, of, unit: None)
    owner = workflow(place, name)
    platform = place.platform("workflow", image="")  # the pods take the launcher's own
    launcher_pod(place, name, owner, root, platform, pod_s3)

    def log() -> str:
        return kubectl("-n", place.name, "logs", name)

    until("the launcher's pod runs", lambda: _running_pod(place, name), 60)
    until("training", lambda: "training runs" in log(), 240)
    (job,) = [j for j in objects("pytorchjobs", place.name) if j["metadata"].get("ownerReferences")]
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": name, "uid": owner["metadata"]["uid"]}
    ]
    start = time.monotonic()
    patch = '{"spec": {"activeDeadlineSeconds": 0}}'
    kubectl("-n", place.name, "patch", "workflow", name, "--type=merge", "-p", patch)
    job_name = job["metadata"]["name"]
    until("the job is deleted", lambda: _gone(place, job_name), 10, 0.2)
    seconds = time.monotonic() - start
    until("no pod runs", lambda: not _running(place, job_name), 30)
    until("the launcher has ended", lambda: "terminated" in log(), 30)
    message = log().splitlines()[-1].removeprefix("error: ")
    table.row("the run is terminated", "terminated", message, seconds, "the job is deleted, before SIGTERM comes")
    kubectl("-n", place.name, "delete", "pod", name, "--wait=false")


def _gone(place: Place, name: str) -> bool:
    return all(job["metadata"]["name"] != name for job in objects("pytorchjobs", place.name))


def _running_pod(place: Place, name: str) -> bool:
    return kubectl("-n", place.name, "get", "pod", name, "-o", "jsonpath={.status.phase}") != "Pending"


def _running(place: Place, name: str) -> list[str]:
    pods = objects("pods", place.name, "-l", f"training.kubeflow.org/job-name={name}")
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]
