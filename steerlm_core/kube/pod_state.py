"""Reading a pod, or a job, as the API server returns it: conditions, container states, last words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steerlm_core.errors import SteerLMError
from steerlm_core.kube.job_files import Outcome

Object = Mapping[str, Any]

_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted",
    "EvictionByEvictionAPI": "evicted",
    "TerminationByKubelet": "evicted",
    "DeletionByTaintManager": "lost_node",
    "DeletionByPodGC": "lost_node",
}


def name_of(thing: Object) -> str:
    """Name of an object."""
    return str(thing["metadata"]["name"])


def uid_of(thing: Object) -> str:
    """Uid of an object."""
    return str(thing["metadata"]["uid"])


def is_leaving(thing: Object) -> bool:
    """Whether an object is being deleted."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def has_ended(pod: Object) -> bool:
    """Whether nothing of the pod runs any more."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def named_condition(thing: Object, kind: str) -> Object | None:
    """The condition of this type, whatever it says."""
    return next((c for c in thing.get("status", {}).get("conditions") or [] if c["type"] == kind), None)


def condition(thing: Object, kind: str) -> Object | None:
    """The condition of this type, where it holds."""
    found = named_condition(thing, kind)
    return found if found and found["status"] == "True" else None


def is_suspended(job: Object) -> bool:
    """Whether a job is, or is to be, without pods."""
    return bool(job.get("spec", {}).get("runPolicy", {}).get("suspend") or condition(job, "Suspended"))


def wanted_pods(job: Object) -> int:
    """How many pods a job is to have."""
    replicas = job.get("spec", {}).get("pytorchReplicaSpecs", {})
    return sum(int(replica.get("replicas", 1)) for replica in replicas.values())


def states(pod: Object) -> Iterator[tuple[str, Object]]:
    """Name and state of every container, init containers first."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for status in pod["status"].get(key, []):
            yield status["name"], status.get("state", {})


def waiting(pod: Object) -> Iterator[tuple[str, str, str]]:
    """Container, reason and message of every container that waits to be started."""
    for container, state in states(pod):
        if found := state.get("waiting"):
            yield container, found.get("reason", ""), found.get("message", "")


def unscheduled(pod: Object) -> str:
    """Why a pod has no node yet, in the scheduler's words; empty where it has one."""
    if condition(pod, "PodScheduled"):
        return ""
    return str((named_condition(pod, "PodScheduled") or {}).get("message") or "no scheduler has looked at it")


def main_states(pod: Object) -> list[Object]:
    """State of every container that is no init container."""
    return [status.get("state", {}) for status in pod["status"].get("containerStatuses", [])]


def has_started(pod: Object) -> bool:
    """Whether every container has been started."""
    found = main_states(pod)
    return bool(found) and all("running" in state or "terminated" in state for state in found)


def is_lost(pod: Object) -> bool:
    """Whether the node is silent: every container runs and is ready, and the pod is not: no probe has said so."""
    ready = named_condition(pod, "Ready")
    statuses = pod["status"].get("containerStatuses", [])
    well = all("running" in status.get("state", {}) and status.get("ready") for status in statuses)
    return pod["status"].get("phase") == "Running" and well and ready is not None and ready["status"] != "True"


def is_owned_by(thing: Object, uid: str) -> bool:
    """Whether an object of this uid owns it."""
    return any(owner["uid"] == uid for owner in thing["metadata"].get("ownerReferences", []))


def disruption(pod: Object) -> tuple[str, str] | None:
    """Class and words of why the cluster itself ends the pod; None where it does not."""
    found = condition(pod, "DisruptionTarget")
    if found is None:
        return None
    reason = found.get("reason", "")
    return _DISRUPTIONS.get(reason, "evicted"), f"{reason}: {found.get('message', '')}"


def last_words(pod: Object) -> Outcome | None:
    """The outcome in the termination message, where the pod's own program wrote one."""
    for state in main_states(pod):
        try:
            return Outcome.from_bytes(state["terminated"]["message"].encode(), name_of(pod))
        except (KeyError, ValueError, SteerLMError):
            continue
    return None


def container_spec(pod: Object, container: str) -> Object:
    """What was asked for a container."""
    spec = pod["spec"]
    every = [*spec.get("initContainers", []), *spec.get("containers", [])]
    return next((found for found in every if found["name"] == container), {})
