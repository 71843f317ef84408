"""The controllers that see to the job: whether PyTorchJob is served, the training operator runs, Kueue heeds the queue.

The operator adds an init container to workers. A dry run of a PyTorchJob makes no pods, so to try a worker one must
know that container: from the ConfigMap that the operator reads it from, and from nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ForbiddenError, KubeApi, KubeObject
from steerlm_core.kube.preflight.check import Check, State

NAMESPACE = "kubeflow"
_INSTALL = (
    "kubectl apply --server-side -k "
    "'github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=v1.9.4'"
)
_KUEUE = "/apis/kueue.x-k8s.io"
_KUEUE_INTEGRATION = "kubeflow.org/pytorchjob"
_DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/training-operator"
_IMAGE_OPTION = "--pytorch-init-container-image="
_INIT_IMAGE = "alpine:3.10"  # where the operator is told no other
_CONFIG_FOLDER, _CONFIG_KEY = "/etc/config", "initContainer.yaml"


@dataclass(frozen=True)
class Operator:
    """What can be seen of it.

    Attributes:
        image: Its image; empty where it is not to be seen.
        ready: Whether a pod of it is ready.
        init_template: Template of the workers' init containers; empty where it is not to be seen.
        init_image: Their image.
    """

    image: str = ""
    ready: bool = False
    init_template: str = ""
    init_image: str = _INIT_IMAGE

    def init_containers(self, master: str) -> list[dict[str, Any]] | None:
        """Return the init containers of a worker that waits for the pod `master`; None where they cannot be known."""
        values = {"InitContainerImage": self.init_image, "MasterAddr": master, "MaxTries": "100"}
        text = self.init_template
        for name, value in values.items():
            text = text.replace(f"{{{{.{name}}}}}", value)
        return None if not text or "{{" in text else list(yaml.safe_load(text))


def find_operator(api: KubeApi) -> Operator | None:
    """Return the operator of the cluster; None where there is none in its usual place.

    Raises:
        ForbiddenError: This account may not look.
    """
    deployment = api.get(_DEPLOYMENT)
    if deployment is None:
        return None
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    options = [*container.get("command", []), *container.get("args", [])]
    images = [option.removeprefix(_IMAGE_OPTION) for option in options if option.startswith(_IMAGE_OPTION)]
    return Operator(
        image=container["image"],
        ready=bool(deployment.get("status", {}).get("readyReplicas")),
        init_template=_init_template(api, pod, container),
        init_image=images[-1] if images else _INIT_IMAGE,
    )


def _init_template(api: KubeApi, pod: KubeObject, container: KubeObject) -> str:
    """Return the template that the operator reads; empty where it may not be read, or there is none."""
    mounted = [each["name"] for each in container.get("volumeMounts", []) if each["mountPath"] == _CONFIG_FOLDER]
    maps = [each["configMap"]["name"] for each in pod.get("volumes", []) if each["name"] in mounted]
    if not maps:
        return ""
    try:
        found = api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{maps[0]}")
    except ForbiddenError:
        return ""
    return str((found or {}).get("data", {}).get(_CONFIG_KEY, ""))


def check_crd(api: KubeApi) -> Check:
    """Return whether the cluster knows PyTorchJobs."""
    group = f"{paths.JOB_GROUP}/{paths.JOB_VERSION}"
    found = api.get(f"/apis/{group}")
    if found is None or "pytorchjobs" not in {each["name"] for each in found["resources"]}:
        return Check("PyTorchJob", State.FAILED, f"the cluster does not know PyTorchJob of {group}", _INSTALL)
    return Check("PyTorchJob", State.OK, f"served as {group}")


def check_operator(api: KubeApi) -> tuple[Operator, Check]:
    """Return the operator as far as it can be seen, and whether it runs."""
    what = "training operator"
    try:
        found = find_operator(api)
    except ForbiddenError as error:
        return Operator(), Check(what, State.UNKNOWN, f"this account may not look: {error}")
    if found is None:
        words = f"not in namespace {NAMESPACE}; if it runs elsewhere, all is well"
        return Operator(), Check(what, State.WARNING, words, _INSTALL)
    if not found.ready:
        restart = f"kubectl -n {NAMESPACE} rollout restart deployment training-operator"
        return found, Check(what, State.FAILED, f"{found.image} is not ready", restart)
    return found, Check(what, State.OK, found.image)


def check_queue(api: KubeApi, name: str, job: KubeObject | None) -> Check:
    """Look for a queue, and whether Kueue heeds the label that names it.

    Args:
        api: The API server.
        name: The LocalQueue.
        job: The job as a dry run returned it: Kueue suspends what it manages; None: none was made.
    """
    group = api.get(_KUEUE)
    if group is None:
        found = "the cluster has no Kueue: nobody heeds the queue, and the job starts at once"
        return Check("Kueue", State.WARNING, found, "Install Kueue, or leave train_job.queue out.")
    version = group["preferredVersion"]["groupVersion"]
    if api.get(f"/apis/{version}/namespaces/{api.namespace}/localqueues/{name}") is None:
        found = f"there is no LocalQueue {name}: the job would wait for ever"
        return Check("Kueue", State.FAILED, found, f"kubectl -n {api.namespace} get localqueues   # train_job.queue")
    there = f"LocalQueue {name} is there"
    if job is None:
        found = f"{there}; whether Kueue heeds PyTorchJobs shows in a dry run of the job, which was not made"
        return Check("Kueue", State.UNKNOWN, found)
    if not job["spec"].get("runPolicy", {}).get("suspend"):
        found = (
            f"{there}, and Kueue does not hold the job, which starts at once: {_KUEUE_INTEGRATION} is off by default"
        )
        edit = "kubectl -n kueue-system edit configmap kueue-manager-config"
        return Check("Kueue", State.WARNING, found, f"{edit}   # integrations.frameworks: [{_KUEUE_INTEGRATION}]")
    return Check("Kueue", State.OK, f"{there}, and Kueue holds the job until its turn")
