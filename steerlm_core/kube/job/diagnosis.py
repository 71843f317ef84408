"""What is wrong with a job, from what can be seen of it: pure, so that a table of cases can test it.

    job, pods, events, outcomes, progress ─► findings ─► GracePeriods ─► a verdict, once one has stood too long

A finding says what it is about and how long it may stand: not at all where nothing can mend it, the
budget of the phase where waiting is what one does. One that goes away, or is about something else, starts anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from steerlm_core.kube.api.client import KubeObject
from steerlm_core.kube.job.failure_classes import DONE, INCONCLUSIVE, PRECEDENCE
from steerlm_core.kube.job.files import PROGRESS_SECONDS, End
from steerlm_core.kube.job.pod_template import CONTAINER
from steerlm_core.kube.job.spec import QUEUE
from steerlm_core.kube.job.state import (
    JobState,
    container_spec,
    container_states,
    disruption,
    has_ended,
    has_started,
    is_being_deleted,
    is_on_lost_node,
    is_suspended,
    missing_pods,
    name_of,
    never_fits_quota,
    phase,
    replica_count,
    termination_outcome,
    true_condition,
    uid_of,
    unscheduled,
    waiting,
)
from steerlm_core.platform import BudgetsConfig

_SETTLE = 3.0  # so long after the first sign of an end a better reason may still be on its way
_TORCHRUN_ENDS = 35.0  # it leaves the other ranks of its pod half a minute to end, before the pod can tell
_LOST = 25.0  # a healthy attempt makes a step known within this, however short its node was away
_TRIES = 15.0  # two pulls or mounts, so that one refused by a busy server does not count

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
_HOPELESS_IMAGE = {"ErrImageNeverPull", "InvalidImageName"}
# What a registry says that another pull does not change; all else may pass, as a restart or a rate limit does.
_NO_IMAGE = ("not found", "manifest unknown", "unauthorized", "denied", "invalid reference", "no such host")
_UNUSABLE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
_FORGOTTEN = {"Unknown", "ContainerStatusUnknown"}  # what a restarted node says of a container that it had
_REJECTED = ("violates PodSecurity", "failed quota", "denied the request", "serviceaccount")
_OWN_LIMIT = re.compile(r"exceed(?:s|ed) .*limit")  # of a volume or of local storage; a full node says otherwise
_LESS_MEMORY = (
    "Raise train_job.resources.memory, lower train.token_budget, or take more nodes or a higher train.zero_stage"
)
_POD_REASONS = {
    "Evicted": "evicted",
    "Preempting": "preempted",
    "Terminated": "lost_node",
    "NodeShutdown": "lost_node",
    "NodeLost": "lost_node",
    "UnexpectedAdmissionError": "lost_node",
    "DeadlineExceeded": "deadline",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not, or not yet, as it should be.

    Attributes:
        kind: Its class.
        about: What it is about; the clock starts anew when this changes.
        seen: What was seen, in words.
        grace: Seconds that it may stand.
        pod: The pod whose log tells more; empty: the master's.
    """

    kind: str
    about: str
    seen: str
    grace: float = 0.0
    pod: str = ""


class GracePeriods:
    """Remembers how long each finding has stood."""

    def __init__(self) -> None:
        """Nothing has been seen."""
        self._since: dict[str, float] = {}

    def exceeded(self, findings: Sequence[Finding], now: float) -> Finding | None:
        """Return the first finding that has stood for its grace; what is not given any more is forgotten."""
        self._since = {s.about: self._since.get(s.about, now) for s in findings}
        return next((s for s in findings if now - self._since[s.about] >= s.grace), None)

    def lasting(self, findings: Sequence[Finding], now: float, seconds: float) -> list[Finding]:
        """Return the findings that have stood for so long."""
        return [s for s in findings if now - self._since[s.about] >= seconds]


def diagnose(observed: JobState, budgets: BudgetsConfig) -> list[Finding]:
    """Return everything that stands between the attempt and its success, the most telling first.

    A job that has succeeded has one finding, `done`.
    """
    job = observed.job
    if job is None or is_being_deleted(job):
        words = "it is gone" if job is None else "it is being deleted"
        return [Finding("job_deleted", "job_deleted", f"{words}, and not by this launcher")]
    if true_condition(job, "Succeeded"):
        return [Finding(DONE, DONE, "the job succeeded")]
    if is_suspended(job) and not true_condition(job, "Failed"):  # its pods end, and come again under other uids
        return [*_waiting(observed, budgets)]
    if ended := _end(observed):
        return [ended]
    return [*_pod_troubles(observed, budgets), *_store(observed, budgets), *_waiting(observed, budgets)]


def api_unreachable(observed: JobState, error: str, budgets: BudgetsConfig) -> list[Finding]:
    """The silence of the API server, given its error; it is borne for as long as steps are seen to be made."""
    step = observed.progress.step if observed.progress else "-"
    seen = f"the API server does not answer: {error}"
    return [Finding("api_unreachable", f"api {step}", seen, budgets.silence)] if error else []


def _end(observed: JobState) -> Finding | None:
    """Why the job, or one of its pods, has failed; None where none has."""
    failed = true_condition(observed.job or {}, "Failed")
    if not failed and not any(pod["status"].get("phase") == "Failed" for pod in observed.pods):
        return None
    said = (failed or {}).get("message", "")
    told = {outcome.pod for outcome in observed.outcomes}
    causes = [*_from_outcomes(observed), *(cause for pod in observed.pods for cause in _from_failed_pod(pod, told))]
    gone = [_deleted(pod, "ended") for pod in observed.deleted]
    gone += [_lost_node(pod, observed) for pod in observed.pods if is_on_lost_node(pod)]
    causes += [replace(cause, grace=0.0) for cause in gone]
    causes.append(Finding("deadline" if "deadline" in said else "failed", "ended", said or "a pod has failed"))
    best = min(causes, key=lambda cause: PRECEDENCE.index(cause.kind))
    settle = _SETTLE if all(has_ended(pod) or is_on_lost_node(pod) for pod in observed.pods) else _TORCHRUN_ENDS
    return replace(best, about="ended", grace=settle if best.kind in INCONCLUSIVE else best.grace)


def _from_outcomes(observed: JobState) -> Iterator[Finding]:
    told = [*observed.outcomes, *(outcome for pod in observed.pods if (outcome := termination_outcome(pod)))]
    for outcome in told:
        if outcome.end is not End.DONE:
            where = f"pod {outcome.pod}, container {CONTAINER}"
            yield Finding(outcome.end.value, "ended", f"{where}: {outcome.message}", pod=outcome.pod)


def _from_failed_pod(pod: KubeObject, told: Collection[str]) -> Iterator[Finding]:
    """What Kubernetes says of a pod; of how its program ended only where that has not told it itself."""
    name, status = name_of(pod), pod["status"]
    if status.get("phase") != "Failed":
        return
    if reason := _POD_REASONS.get(status.get("reason", "")):
        said = f"{status['reason']}: {status.get('message', '')}"
        if reason == "evicted" and _OWN_LIMIT.search(said):
            reason, said = "configuration", f"{said}. Raise it in train_job.resources (ephemeral_storage, scratch)"
        yield Finding(reason, "ended", f"pod {name}: {said}", pod=name)
    if by := disruption(pod):
        yield Finding(by[0], "ended", f"pod {name}: {by[1]}", pod=name)
    silent = name not in told and termination_outcome(pod) is None
    for container, state in container_states(pod):
        where, ended = f"pod {name}, container {container}", state.get("terminated", {})
        if cause := _from_ended_container(pod, container, ended):
            yield Finding(cause[0], "ended", f"{where}: {cause[1]}", pod=name)
        elif silent and ended.get("exitCode"):
            yield _from_exit_code(int(ended["exitCode"]), container, where, name)


def _from_ended_container(pod: KubeObject, container: str, ended: KubeObject) -> tuple[str, str] | None:
    reason = ended.get("reason")
    if reason == "OOMKilled":
        limit = container_spec(pod, container).get("resources", {}).get("limits", {}).get("memory", "what the node has")
        return "out_of_memory", f"killed for using more memory than {limit}. {_LESS_MEMORY}"
    if reason in _UNUSABLE:
        return "configuration", f"{reason}: {ended.get('message', '')}"
    if reason in _FORGOTTEN:
        return "lost_node", f"{reason}: node {pod['spec'].get('nodeName')} came back without it"
    return None


def _from_exit_code(code: int, container: str, where: str, pod: str) -> Finding:
    """Our entry point tells how it has ended; what ends with a code of its own before is not ours."""
    if code < 128 and container == CONTAINER:
        seen = f"{where}: ended with exit code {code} before it was ours: is image.name of this release?"
        return Finding("configuration", "ended", seen, _SETTLE, pod)
    signal = f" (signal {code - 128})" if 128 < code < 160 else ""
    return Finding("killed", "ended", f"{where}: ended with exit code {code}{signal}", pod=pod)


def _pod_troubles(observed: JobState, budgets: BudgetsConfig) -> Iterator[Finding]:
    for pod in observed.pods:
        name, uid = name_of(pod), uid_of(pod)
        if observed.first_uids.get(name, uid) != uid:
            yield Finding("pod_replaced", f"uid {uid}", f"pod {name} was deleted, and the operator made another")
        elif is_being_deleted(pod) and not has_ended(pod):
            yield _deleted(pod, f"leaving {uid}")
        elif is_on_lost_node(pod):
            yield _lost_node(pod, observed)
        yield from _stuck_containers(pod, budgets)


def _deleted(pod: KubeObject, about: str) -> Finding:
    kind, words = disruption(pod) or ("pod_deleted", "somebody deleted it")
    return Finding(kind, about, f"pod {name_of(pod)}: {words}", _SETTLE, name_of(pod))


def _lost_node(pod: KubeObject, observed: JobState) -> Finding:
    step = observed.progress.step if observed.progress else "-"  # a step made meanwhile starts the clock anew
    words = f"node {pod['spec'].get('nodeName')} does not answer (the pod's condition Ready is False)"
    seen = f"pod {name_of(pod)}: {words}, and no step has come since"
    grace = max(_LOST, PROGRESS_SECONDS + 2 * observed.step_seconds)
    return Finding("lost_node", f"lost {uid_of(pod)} {step}", seen, grace)


def _stuck_containers(pod: KubeObject, budgets: BudgetsConfig) -> Iterator[Finding]:
    for container, reason, message in waiting(pod):
        said = f"pod {name_of(pod)}, container {container}: {reason}: {message}".rstrip(": ")
        if reason in _IMAGE:
            image = container_spec(pod, container).get("image", "")
            grace = _image_grace(reason, message.replace(image, ""), budgets)
            yield Finding("image", f"image {uid_of(pod)} {container}", f"{said} (image {image})", grace)
        elif reason in _UNUSABLE:
            yield Finding("configuration", f"unusable {uid_of(pod)} {container}", said, _TRIES)


def _image_grace(reason: str, message: str, budgets: BudgetsConfig) -> float:
    if reason in _HOPELESS_IMAGE:
        return 0.0
    return _TRIES if any(words in message.lower() for words in _NO_IMAGE) else budgets.image


def _store(observed: JobState, budgets: BudgetsConfig) -> Iterator[Finding]:
    if observed.store_error:
        seen = f"the run root cannot be reached: {observed.store_error}"
        yield Finding("store_unreachable", "store", seen, budgets.silence)


def _waiting(observed: JobState, budgets: BudgetsConfig) -> Iterator[Finding]:
    """What the phase waits for, with its budget."""
    now = phase(observed)
    if now == "suspended":
        queue = (observed.job or {})["metadata"].get("labels", {}).get(QUEUE)
        seen = f"the job is suspended{f': it waits for admission by the queue {queue}' if queue else ''}"
        yield Finding("suspended", "suspended", seen, budgets.admission)
    elif now == "admission":
        yield _not_admitted(observed, budgets)
    elif now == "scheduling":
        pod, words = next((pod, words) for pod in observed.pods if (words := unscheduled(pod)))
        yield Finding("unschedulable", "scheduling", f"pod {name_of(pod)}: {words}", budgets.scheduling)
    elif now == "image":
        yield Finding("image", "image", _not_started(observed, budgets), budgets.image)
    elif now == "start":
        yield Finding("not_started", "start", "the pods run, and no optimizer step has been made", budgets.start)
    elif observed.progress:
        where = f"step {observed.progress.step} of {observed.progress.steps}"
        if not observed.store_error:  # without a store nobody hears of steps
            yield Finding("silent", f"silent {where}", f"no progress beyond {where}", budgets.silence)
        yield Finding("running", "running", f"it runs for longer than allowed, and is at {where}", budgets.running)


def _not_started(observed: JobState, budgets: BudgetsConfig) -> str:
    """What keeps the containers, whose budget runs since the pods have nodes: a pull that fails, where one does."""
    stuck = (finding for pod in observed.pods for finding in _stuck_containers(pod, budgets))
    pod = next(pod for pod in observed.pods if not has_started(pod))
    generic = f"pod {name_of(pod)}: its container has not started (image, volumes or init container)"
    return next((finding.seen for finding in stuck if finding.kind == "image"), generic)


def _not_admitted(observed: JobState, budgets: BudgetsConfig) -> Finding:
    missing = f"{missing_pods(observed)} of {replica_count(observed.job or {})} pods do not exist"
    said = [event.get("message", "") for event in observed.events or () if event.get("type") == "Warning"]
    for message in reversed(said):
        if "exceeded quota" in message:
            grace = 0.0 if never_fits_quota(message, replica_count(observed.job or {})) else budgets.admission
            return Finding("quota", "admission", f"{missing}: {message}", grace)
        if any(words in message for words in _REJECTED):
            return Finding("rejected", "rejected", f"{missing}: {message}", _TRIES)
    last = f"; the last warning: {said[-1]}" if said else ""
    return Finding("pods_not_created", "admission", missing + last, budgets.admission)
