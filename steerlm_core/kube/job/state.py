"""The state of a job: how to read it and its pods as the API server returns them, and all that is seen at a moment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from steerlm_core.errors import SteerLMError
from steerlm_core.kube.api.client import KubeObject
from steerlm_core.kube.job.files import Outcome, Progress

_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted",
    "EvictionByEvictionAPI": "evicted",
    "TerminationByKubelet": "evicted",
    "DeletionByTaintManager": "lost_node",
    "DeletionByPodGC": "lost_node",
}


def name_of(thing: KubeObject) -> str:
    """Name of an object."""
    return str(thing["metadata"]["name"])


def uid_of(thing: KubeObject) -> str:
    """Uid of an object."""
    return str(thing["metadata"]["uid"])


def is_being_deleted(thing: KubeObject) -> bool:
    """Whether an object is being deleted."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def has_ended(pod: KubeObject) -> bool:
    """Whether nothing of the pod runs any more."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def condition_of_type(thing: KubeObject, kind: str) -> KubeObject | None:
    """The condition of this type, whatever it says."""
    return next((c for c in thing.get("status", {}).get("conditions") or [] if c["type"] == kind), None)


def true_condition(thing: KubeObject, kind: str) -> KubeObject | None:
    """The condition of this type, where it holds."""
    found = condition_of_type(thing, kind)
    return found if found and found["status"] == "True" else None


def is_suspended(job: KubeObject) -> bool:
    """Whether a job is, or is to be, without pods."""
    return bool(job.get("spec", {}).get("runPolicy", {}).get("suspend") or true_condition(job, "Suspended"))


def replica_count(job: KubeObject) -> int:
    """How many pods a job is to have."""
    replicas = job.get("spec", {}).get("pytorchReplicaSpecs", {})
    return sum(int(replica.get("replicas", 1)) for replica in replicas.values())


def container_states(pod: KubeObject) -> Iterator[tuple[str, KubeObject]]:
    """Name and state of every container, init containers first."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for status in pod["status"].get(key, []):
            yield status["name"], status.get("state", {})


def waiting(pod: KubeObject) -> Iterator[tuple[str, str, str]]:
    """Container, reason and message of every container that waits to be started."""
    for container, state in container_states(pod):
        if found := state.get("waiting"):
            yield container, found.get("reason", ""), found.get("message", "")


def unscheduled(pod: KubeObject) -> str:
    """Why a pod has no node yet, in the scheduler's words; empty where it has one."""
    if true_condition(pod, "PodScheduled"):
        return ""
    return str((condition_of_type(pod, "PodScheduled") or {}).get("message") or "no scheduler has looked at it")


def main_container_states(pod: KubeObject) -> list[KubeObject]:
    """State of every container that is no init container."""
    return [status.get("state", {}) for status in pod["status"].get("containerStatuses", [])]


def has_started(pod: KubeObject) -> bool:
    """Whether every container has been started."""
    found = main_container_states(pod)
    return bool(found) and all("running" in state or "terminated" in state for state in found)


def is_on_lost_node(pod: KubeObject) -> bool:
    """Whether the node is silent: every container runs and is ready, and the pod is not: no probe has said so."""
    ready = condition_of_type(pod, "Ready")
    statuses = pod["status"].get("containerStatuses", [])
    well = all("running" in status.get("state", {}) and status.get("ready") for status in statuses)
    return pod["status"].get("phase") == "Running" and well and ready is not None and ready["status"] != "True"


def is_owned_by(thing: KubeObject, uid: str) -> bool:
    """Whether an object of this uid owns it."""
    return any(owner["uid"] == uid for owner in thing["metadata"].get("ownerReferences", []))


def disruption(pod: KubeObject) -> tuple[str, str] | None:
    """Class and words of why the cluster itself ends the pod; None where it does not."""
    found = true_condition(pod, "DisruptionTarget")
    if found is None:
        return None
    reason = found.get("reason", "")
    return _DISRUPTIONS.get(reason, "evicted"), f"{reason}: {found.get('message', '')}"


def termination_outcome(pod: KubeObject) -> Outcome | None:
    """The outcome in the termination message, where the pod's own program wrote one."""
    for state in main_container_states(pod):
        try:
            return Outcome.from_bytes(state["terminated"]["message"].encode(), name_of(pod))
        except (KeyError, ValueError, SteerLMError):
            continue
    return None


def container_spec(pod: KubeObject, container: str) -> KubeObject:
    """What was asked for a container."""
    spec = pod["spec"]
    every = [*spec.get("initContainers", []), *spec.get("containers", [])]
    return next((found for found in every if found["name"] == container), {})


@dataclass(frozen=True)
class JobState:
    """What can be seen of an attempt at one moment.

    Attributes:
        job: The PyTorchJob; None: the API server has none of that name.
        pods: Its pods.
        events: Events about the job, the newest last; None: they may not be read.
        outcomes: What its pods left in the run root.
        progress: The last progress in the run root.
        step_seconds: How long a step takes; 0 while that is not known.
        first_uids: The uid that each pod had when it was first seen, by name.
        deleted: Pods that were deleted before anything had failed, as last seen.
        store_error: Why the run root cannot be read; empty when it can.
    """

    job: KubeObject | None
    pods: Sequence[KubeObject] = ()
    events: Sequence[KubeObject] | None = ()
    outcomes: Sequence[Outcome] = ()
    progress: Progress | None = None
    first_uids: Mapping[str, str] = field(default_factory=dict)
    store_error: str = ""
    deleted: Sequence[KubeObject] = ()
    step_seconds: float = 0.0


def phase(observed: JobState) -> str:
    """Return what the attempt waits for: suspended, admission, scheduling, image, start, or running."""
    job = observed.job or {}
    if is_suspended(job):
        return "suspended"
    if missing_pods(observed):
        return "admission"
    if any(unscheduled(pod) for pod in observed.pods):
        return "scheduling"
    if not all(has_started(pod) for pod in observed.pods):
        return "image"
    return "running" if observed.progress else "start"


def missing_pods(observed: JobState) -> int:
    """Return how many of its pods a job does not have yet."""
    return replica_count(observed.job or {}) - len(observed.pods)


def never_fits_quota(message: str, pods: int) -> bool:
    """Whether a quota's message about one of so many equal pods says that together they are beyond the limit."""
    found = dict(re.findall(r"\b(requested|limited): (.*?)(?=, used:|, limited:|$)", message))
    limits = _amounts(found.get("limited", ""))
    requested = _amounts(found.get("requested", ""))
    return any(pods * amount > limits[name] for name, amount in requested.items() if name in limits)


def _amounts(text: str) -> dict[str, Any]:
    return {name: parse_quantity(amount) for name, amount in re.findall(r"([\w./-]+)=([\w.]+)", text)}
