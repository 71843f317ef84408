"""Server-side dry runs: the job, and its pods, which a dry run of the job does not make.

Pod Security, quotas, limit ranges, priority classes and service accounts speak up here and not an hour into a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steerlm_core import __version__
from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, ForbiddenError, KubeApi, KubeObject, patiently
from steerlm_core.kube.job.spec import JobTarget, build_job
from steerlm_core.kube.job.state import never_fits_quota
from steerlm_core.kube.preflight.check import Check, State
from steerlm_core.kube.preflight.controllers import NAMESPACE, Operator
from steerlm_core.platform import PlatformConfig

_DRY = {"dryRun": "All"}
_WEBHOOK_SECONDS = 10.0  # it refuses connections while the operator starts
_INIT, _WORKER = "init-pytorch", "Worker"
_SEE_INIT = (
    f"Run doctor as one that may read ConfigMaps of namespace {NAMESPACE}; give the operator an initContainer.yaml if "
    "it has none (docs/training-on-kubernetes.md)."
)
_CORRECT = "Correct train_job of the platform file."


def sample_job(platform: PlatformConfig, image: str, namespace: str) -> KubeObject:
    """Return a job like those of a run."""
    target = JobTarget("s3://bucket/run", "doctor", 0, "train", __version__)
    return build_job(target, platform, image, namespace, 0, [])


def sample_pods(job: Mapping[str, Any], operator: Operator) -> Iterator[tuple[str, KubeObject]]:
    """Yield a pod of each replica type, by the type's name, with the operator's init container where it is known."""
    for kind, replica in job["spec"]["pytorchReplicaSpecs"].items():
        template = replica["template"]
        metadata = {**template["metadata"], "name": f"{job['metadata']['name']}-{kind.lower()}-0"}
        spec = {**template["spec"], "restartPolicy": "Never"}
        if kind == _WORKER and (added := operator.init_containers(f"{job['metadata']['name']}-master-0")):
            spec["initContainers"] = [*spec.get("initContainers", []), *added]
        yield kind, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pods_of(job: Mapping[str, Any]) -> Iterator[KubeObject]:
    """Yield the pods of a job, without what the operator adds."""
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        yield from [replica["template"]] * replica["replicas"]


def dry_run_job(api: KubeApi, job: KubeObject) -> tuple[Check, KubeObject | None]:
    """Have the API server and its webhooks look at the job; return what they made of it too, None if they refused."""
    what = "dry run of the job"
    try:
        made = patiently(lambda: api.request("POST", paths.jobs(api.namespace), job, _DRY), _WEBHOOK_SECONDS)
    except ClusterError as error:
        repair = f"kubectl -n {NAMESPACE} rollout restart deployment training-operator" * error.transient
        return Check(what, State.FAILED, str(error), repair or _CORRECT), None
    return Check(what, State.OK, "accepted by the API server and the operator's webhook"), made


def dry_run_pod(api: KubeApi, kind: str, pod: KubeObject, operator: Operator) -> Check:
    """Have admission look at a pod; `api.can_i("create", "pods")` comes first."""
    what = f"dry run of the {kind.lower()} pod"
    try:
        api.request("POST", paths.pods(api.namespace), pod, _DRY)
        if kind == _WORKER and operator.init_containers("master") is None:
            found = "admitted, but for the init container that the operator adds, which cannot be seen from here"
            return Check(what, State.UNKNOWN, found, _SEE_INIT)
        return Check(what, State.OK, "admitted" + (", with the operator's init container" if kind == _WORKER else ""))
    except ForbiddenError as error:
        # Others may leave room for a pod that fits by itself; whether all of them do, `check_quotas` tells.
        used_up = "exceeded quota" in str(error) and not never_fits_quota(str(error), 1)
        state = State.WARNING if used_up else State.FAILED
        return Check(what, state, str(error), _repair(str(error), api.namespace, pod))
    except ClusterError as error:
        if error.transient:
            return Check(what, State.UNKNOWN, f"could not be tried: {error}")
        return Check(what, State.FAILED, str(error), _CORRECT)


def _repair(words: str, namespace: str, pod: KubeObject) -> str:
    if "violates PodSecurity" in words and _INIT in words:
        return (
            f"kubectl -n {NAMESPACE} edit configmap training-operator-config   # initContainer.yaml: a securityContext "
            "with runAsNonRoot, runAsUser, seccompProfile, no capabilities (docs/training-on-kubernetes.md)"
        )
    if "violates PodSecurity" in words:
        return "Correct train_job.patch, train_job.volumes or train_job.user of the platform file."
    if "exceeded quota" in words or "must specify" in words:
        return (
            f"kubectl -n {namespace} get resourcequota,limitrange -o yaml   # and ask for less in train_job.resources"
        )
    if "serviceaccount" in words:
        return f"kubectl -n {namespace} create serviceaccount {pod['spec']['serviceAccountName']}"
    return _CORRECT
