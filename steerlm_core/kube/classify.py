"""What is wrong with a job, from what can be seen of it: pure, so that a table of cases can test it.

    job, pods, events, outcomes, progress ─► symptoms ─► Patience ─► a verdict, once one has stood too long

A symptom says what it is about and how long it may stand: not at all where nothing can mend it, the
budget of the phase where waiting is what one does. One that goes away, or is about something else, starts anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from steerlm_core.kube.job_files import PROGRESS_SECONDS, End, Outcome, Progress
from steerlm_core.kube.pod_state import (
    Object,
    condition,
    container_spec,
    disruption,
    has_ended,
    has_started,
    is_leaving,
    is_lost,
    is_suspended,
    last_words,
    name_of,
    states,
    uid_of,
    unscheduled,
    waiting,
    wanted_pods,
)
from steerlm_core.kube.pod_template import CONTAINER
from steerlm_core.kube.quota import never_fits
from steerlm_core.kube.spec import QUEUE
from steerlm_core.kube.symptom import Symptom
from steerlm_core.kube.verdicts import DONE, TELLING, WEAK
from steerlm_core.platform_config import BudgetsConfig

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
class Sight:
    """What can be seen of an attempt at one moment.

    Attributes:
        job: The PyTorchJob; None: the API server has none of that name.
        pods: Its pods.
        events: Events about the job, the newest last; None: they may not be read.
        outcomes: What its pods left in the run root.
        progress: The last progress in the run root.
        step_seconds: How long a step takes; 0 while that is not known.
        uids: The uid that each pod had when it was first seen, by name.
        left: Pods that were deleted before anything had failed, as last seen.
        store_error: Why the run root cannot be read; empty when it can.
    """

    job: Object | None
    pods: Sequence[Object] = ()
    events: Sequence[Object] | None = ()
    outcomes: Sequence[Outcome] = ()
    progress: Progress | None = None
    uids: Mapping[str, str] = field(default_factory=dict)
    store_error: str = ""
    left: Sequence[Object] = ()
    step_seconds: float = 0.0


def phase(sight: Sight) -> str:
    """Return what the attempt waits for: suspended, admission, scheduling, image, start, or running."""
    job = sight.job or {}
    if is_suspended(job):
        return "suspended"
    if _missing(sight):
        return "admission"
    if any(unscheduled(pod) for pod in sight.pods):
        return "scheduling"
    if not all(has_started(pod) for pod in sight.pods):
        return "image"
    return "running" if sight.progress else "start"


def symptoms(sight: Sight, budgets: BudgetsConfig) -> list[Symptom]:
    """Return everything that stands between the attempt and its success, the most telling first.

    A job that has succeeded has one symptom, `done`.
    """
    job = sight.job
    if job is None or is_leaving(job):
        words = "it is gone" if job is None else "it is being deleted"
        return [Symptom("job_deleted", "job_deleted", f"{words}, and not by this launcher")]
    if condition(job, "Succeeded"):
        return [Symptom(DONE, DONE, "the job succeeded")]
    if is_suspended(job) and not condition(job, "Failed"):  # its pods end, and come again under other uids
        return [*_waiting(sight, budgets)]
    if ended := _end(sight):
        return [ended]
    return [*_pod_troubles(sight, budgets), *_store(sight, budgets), *_waiting(sight, budgets)]


def unreachable(sight: Sight, error: str, budgets: BudgetsConfig) -> list[Symptom]:
    """The silence of the API server, given its error; it is borne for as long as steps are seen to be made."""
    step = sight.progress.step if sight.progress else "-"
    seen = f"the API server does not answer: {error}"
    return [Symptom("api_unreachable", f"api {step}", seen, budgets.silence)] if error else []


def _end(sight: Sight) -> Symptom | None:
    """Why the job, or one of its pods, has failed; None where none has."""
    failed = condition(sight.job or {}, "Failed")
    if not failed and not any(pod["status"].get("phase") == "Failed" for pod in sight.pods):
        return None
    said = (failed or {}).get("message", "")
    told = {outcome.pod for outcome in sight.outcomes}
    causes = [*_from_outcomes(sight), *(cause for pod in sight.pods for cause in _from_failed_pod(pod, told))]
    gone = [_deleted(pod, "ended") for pod in sight.left]
    gone += [_lost_node(pod, sight) for pod in sight.pods if is_lost(pod)]
    causes += [replace(cause, patience=0.0) for cause in gone]
    causes.append(Symptom("deadline" if "deadline" in said else "failed", "ended", said or "a pod has failed"))
    best = min(causes, key=lambda cause: TELLING.index(cause.kind))
    settle = _SETTLE if all(has_ended(pod) or is_lost(pod) for pod in sight.pods) else _TORCHRUN_ENDS
    return replace(best, about="ended", patience=settle if best.kind in WEAK else best.patience)


def _from_outcomes(sight: Sight) -> Iterator[Symptom]:
    told = [*sight.outcomes, *(outcome for pod in sight.pods if (outcome := last_words(pod)))]
    for outcome in told:
        if outcome.end is not End.DONE:
            where = f"pod {outcome.pod}, container {CONTAINER}"
            yield Symptom(outcome.end.value, "ended", f"{where}: {outcome.message}", pod=outcome.pod)


def _from_failed_pod(pod: Object, told: Collection[str]) -> Iterator[Symptom]:
    """What Kubernetes says of a pod; of how its program ended only where that has not told it itself."""
    name, status = name_of(pod), pod["status"]
    if status.get("phase") != "Failed":
        return
    if reason := _POD_REASONS.get(status.get("reason", "")):
        said = f"{status['reason']}: {status.get('message', '')}"
        if reason == "evicted" and _OWN_LIMIT.search(said):
            reason, said = "configuration", f"{said}. Raise it in train_job.resources (ephemeral_storage, scratch)"
        yield Symptom(reason, "ended", f"pod {name}: {said}", pod=name)
    if by := disruption(pod):
        yield Symptom(by[0], "ended", f"pod {name}: {by[1]}", pod=name)
    silent = name not in told and last_words(pod) is None
    for container, state in states(pod):
        where, ended = f"pod {name}, container {container}", state.get("terminated", {})
        if cause := _from_ended_container(pod, container, ended):
            yield Symptom(cause[0], "ended", f"{where}: {cause[1]}", pod=name)
        elif silent and ended.get("exitCode"):
            yield _from_exit_code(int(ended["exitCode"]), container, where, name)


def _from_ended_container(pod: Object, container: str, ended: Object) -> tuple[str, str] | None:
    reason = ended.get("reason")
    if reason == "OOMKilled":
        limit = container_spec(pod, container).get("resources", {}).get("limits", {}).get("memory", "what the node has")
        return "out_of_memory", f"killed for using more memory than {limit}. {_LESS_MEMORY}"
    if reason in _UNUSABLE:
        return "configuration", f"{reason}: {ended.get('message', '')}"
    if reason in _FORGOTTEN:
        return "lost_node", f"{reason}: node {pod['spec'].get('nodeName')} came back without it"
    return None


def _from_exit_code(code: int, container: str, where: str, pod: str) -> Symptom:
    """Our entry point tells how it has ended; what ends with a code of its own before is not ours."""
    if code < 128 and container == CONTAINER:
        seen = f"{where}: ended with exit code {code} before it was ours: is image.name of this release?"
        return Symptom("configuration", "ended", seen, _SETTLE, pod)
    signal = f" (signal {code - 128})" if 128 < code < 160 else ""
    return Symptom("killed", "ended", f"{where}: ended with exit code {code}{signal}", pod=pod)


def _pod_troubles(sight: Sight, budgets: BudgetsConfig) -> Iterator[Symptom]:
    for pod in sight.pods:
        name, uid = name_of(pod), uid_of(pod)
        if sight.uids.get(name, uid) != uid:
            yield Symptom("pod_replaced", f"uid {uid}", f"pod {name} was deleted, and the operator made another")
        elif is_leaving(pod) and not has_ended(pod):
            yield _deleted(pod, f"leaving {uid}")
        elif is_lost(pod):
            yield _lost_node(pod, sight)
        yield from _stuck_containers(pod, budgets)


def _deleted(pod: Object, about: str) -> Symptom:
    kind, words = disruption(pod) or ("pod_deleted", "somebody deleted it")
    return Symptom(kind, about, f"pod {name_of(pod)}: {words}", _SETTLE, name_of(pod))


def _lost_node(pod: Object, sight: Sight) -> Symptom:
    step = sight.progress.step if sight.progress else "-"  # a step made meanwhile starts the clock anew
    words = f"node {pod['spec'].get('nodeName')} does not answer (the pod's condition Ready is False)"
    seen = f"pod {name_of(pod)}: {words}, and no step has come since"
    patience = max(_LOST, PROGRESS_SECONDS + 2 * sight.step_seconds)
    return Symptom("lost_node", f"lost {uid_of(pod)} {step}", seen, patience)


def _stuck_containers(pod: Object, budgets: BudgetsConfig) -> Iterator[Symptom]:
    for container, reason, message in waiting(pod):
        said = f"pod {name_of(pod)}, container {container}: {reason}: {message}".rstrip(": ")
        if reason in _IMAGE:
            image = container_spec(pod, container).get("image", "")
            patience = _image_patience(reason, message.replace(image, ""), budgets)
            yield Symptom("image", f"image {uid_of(pod)} {container}", f"{said} (image {image})", patience)
        elif reason in _UNUSABLE:
            yield Symptom("configuration", f"unusable {uid_of(pod)} {container}", said, _TRIES)


def _image_patience(reason: str, message: str, budgets: BudgetsConfig) -> float:
    if reason in _HOPELESS_IMAGE:
        return 0.0
    return _TRIES if any(words in message.lower() for words in _NO_IMAGE) else budgets.image


def _store(sight: Sight, budgets: BudgetsConfig) -> Iterator[Symptom]:
    if sight.store_error:
        seen = f"the run root cannot be reached: {sight.store_error}"
        yield Symptom("store_unreachable", "store", seen, budgets.silence)


def _waiting(sight: Sight, budgets: BudgetsConfig) -> Iterator[Symptom]:
    """What the phase waits for, with its budget."""
    now = phase(sight)
    if now == "suspended":
        queue = (sight.job or {})["metadata"].get("labels", {}).get(QUEUE)
        seen = f"the job is suspended{f': it waits for admission by the queue {queue}' if queue else ''}"
        yield Symptom("suspended", "suspended", seen, budgets.admission)
    elif now == "admission":
        yield _not_admitted(sight, budgets)
    elif now == "scheduling":
        pod, words = next((pod, words) for pod in sight.pods if (words := unscheduled(pod)))
        yield Symptom("unschedulable", "scheduling", f"pod {name_of(pod)}: {words}", budgets.scheduling)
    elif now == "image":
        yield Symptom("image", "image", _not_started(sight, budgets), budgets.image)
    elif now == "start":
        yield Symptom("not_started", "start", "the pods run, and no optimizer step has been made", budgets.start)
    elif sight.progress:
        where = f"step {sight.progress.step} of {sight.progress.steps}"
        if not sight.store_error:  # without a store nobody hears of steps
            yield Symptom("silent", f"silent {where}", f"no progress beyond {where}", budgets.silence)
        yield Symptom("running", "running", f"it runs for longer than allowed, and is at {where}", budgets.running)


def _not_started(sight: Sight, budgets: BudgetsConfig) -> str:
    """What keeps the containers, whose budget runs since the pods have nodes: a pull that fails, where one does."""
    stuck = (symptom for pod in sight.pods for symptom in _stuck_containers(pod, budgets))
    pod = next(pod for pod in sight.pods if not has_started(pod))
    generic = f"pod {name_of(pod)}: its container has not started (image, volumes or init container)"
    return next((symptom.seen for symptom in stuck if symptom.kind == "image"), generic)


def _not_admitted(sight: Sight, budgets: BudgetsConfig) -> Symptom:
    missing = f"{_missing(sight)} of {wanted_pods(sight.job or {})} pods do not exist"
    said = [event.get("message", "") for event in sight.events or () if event.get("type") == "Warning"]
    for message in reversed(said):
        if "exceeded quota" in message:
            patience = 0.0 if never_fits(message, wanted_pods(sight.job or {})) else budgets.admission
            return Symptom("quota", "admission", f"{missing}: {message}", patience)
        if any(words in message for words in _REJECTED):
            return Symptom("rejected", "rejected", f"{missing}: {message}", _TRIES)
    last = f"; the last warning: {said[-1]}" if said else ""
    return Symptom("pods_not_created", "admission", missing + last, budgets.admission)


def _missing(sight: Sight) -> int:
    return wanted_pods(sight.job or {}) - len(sight.pods)
