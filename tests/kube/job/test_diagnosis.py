"""What is seen of a job, and what the launcher makes of it: one case a row, no cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from steerlm_core.kube.job.diagnosis import Finding, GracePeriods, api_unreachable, diagnose
from steerlm_core.kube.job.files import End, Outcome, Progress
from steerlm_core.kube.job.spec import QUEUE
from steerlm_core.kube.job.state import JobState, phase
from steerlm_core.platform import BudgetsConfig

BUDGETS = BudgetsConfig(admission=100, scheduling=200, image=300, start=400, silence=500, running=600)
RUNNING: dict[str, Any] = {"running": {"startedAt": "now"}}
PROGRESS = Progress(step=3, steps=10, loss=1.0, time=0.0)


def job(*conditions: str, message: str = "", **spec: Any) -> dict[str, Any]:
    replicas = {"Master": {"replicas": 1}, "Worker": {"replicas": 1}}
    return {
        "metadata": {"name": "job", "uid": "job-uid"},
        "spec": {"pytorchReplicaSpecs": replicas, "runPolicy": spec},
        "status": {"conditions": [{"type": kind, "status": "True", "message": message} for kind in conditions]},
    }


def pod(
    name: str = "job-master-0",
    uid: str = "",
    phase: str = "Running",
    state: Mapping[str, Any] = RUNNING,
    ready: bool = True,
    scheduled: bool = True,
    leaving: bool = False,
    disruption: str = "",
    probed: bool = True,
    **status: Any,
) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": str(ready)},
        {"type": "PodScheduled", "status": str(scheduled), "message": "0/2 nodes are available: 2 Insufficient cpu."},
    ]
    if disruption:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": disruption, "message": "why"})
    metadata: dict[str, Any] = {"name": name, "uid": uid or name}
    if leaving:
        metadata["deletionTimestamp"] = "now"
    limits = {"limits": {"memory": "1Gi"}}
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-2", "containers": [{"name": "pytorch", "image": "some:tag", "resources": limits}]},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [{"name": "pytorch", "state": state, "ready": probed}] if scheduled else [],
            **status,
        },
    }


def worker(**changes: Any) -> dict[str, Any]:
    return pod("job-worker-0", **changes)


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"phase": "Failed", "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"phase": "Pending", "state": {"waiting": {"reason": reason, "message": message}}}


def outcome(end: End, rank: int = 0, message: str = "said so") -> Outcome:
    return Outcome(end=end, message=message, rank=rank, pod=f"pod-{rank}", time=0.0)


def event(message: str) -> dict[str, Any]:
    return {"type": "Warning", "reason": "FailedCreatePod", "message": message}


QUOTA = (
    'Error creating: pods "j" is forbidden: exceeded quota: q, requested: limits.memory={},pods=1, '
    "used: limits.memory=1Gi,pods=1, limited: limits.memory=2Gi,pods=9"
)
INIT = [{"name": "init-pytorch", "state": {"terminated": {"exitCode": 1}}}]
FULL = 'Usage of EmptyDir volume "scratch" exceeds the limit "500Mi".'
BROKEN = outcome(End.RETRYABLE).to_bytes().decode()
WORDS = outcome(End.NON_FINITE, 1).to_bytes().decode()

CASES: list[tuple[str, JobState, str, float, str]] = [
    # name, what is seen, class, grace, words in the message
    ("job gone", JobState(None), "job_deleted", 0, "not by this launcher"),
    ("job leaving", JobState(job() | {"metadata": {"name": "j", "uid": "u", "deletionTimestamp": "t"}}),
     "job_deleted", 0, "being deleted"),
    ("succeeded", JobState(job("Running", "Succeeded"), [pod(phase="Succeeded")]), "done", 0, "succeeded"),
    ("succeeded while a worker is being killed", JobState(job("Succeeded"), [worker(**ended(143))]), "done", 0, ""),
    ("image missing", JobState(job(), [pod(**waiting("ErrImagePull", "not found")), worker()]), "image", 15,
     "some:tag"),
    ("image back-off, and no cause", JobState(job(), [pod(**waiting("ImagePullBackOff")), worker()]), "image", 300,
     "job-master-0"),
    ("registry refuses connections", JobState(job(), [pod(**waiting("ErrImagePull", "dial tcp: connection refused"))]),
     "image", 300, "connection refused"),
    ("registry is busy", JobState(job(), [pod(**waiting("ErrImagePull", "toomanyrequests: try later"))]), "image", 300,
     "try later"),
    ("registry says no", JobState(job(), [pod(**waiting("ImagePullBackOff", "pull access denied"))]), "image", 15,
     "denied"),
    ("registry unknown", JobState(job(), [pod(**waiting("ErrImagePull", "lookup r: no such host"))]), "image", 15, ""),
    ("image never pulled", JobState(job(), [pod(**waiting("ErrImageNeverPull")), worker()]), "image", 0, "pytorch"),
    ("secret missing", JobState(job(), [pod(**waiting("CreateContainerConfigError", "secret x not found")), worker()]),
     "configuration", 15, "secret x not found"),
    ("no such command", JobState(job("Failed"), [pod(**ended(128, "StartError", "no such file"))]), "configuration", 0,
     "no such file"),
    ("out of memory", JobState(job("Failed"), [pod(**ended(137, "OOMKilled")), worker()]), "out_of_memory", 0, "1Gi"),
    ("out of memory in a worker, told before the broken peer",
     JobState(job("Failed"), [pod(**ended(137)), worker(**ended(1, "OOMKilled"))], outcomes=[outcome(End.RETRYABLE)]),
     "out_of_memory", 0, "job-worker-0"),
    ("unschedulable", JobState(job(), [pod(scheduled=False), worker()]), "unschedulable", 200, "Insufficient cpu"),
    ("slow image", JobState(job(), [pod(**waiting("ContainerCreating")), worker()]), "image", 300, "has not started"),
    ("nothing happens", JobState(job(), [pod(), worker()]), "not_started", 400, "no optimizer step"),
    ("training", JobState(job(), [pod(), worker()], progress=PROGRESS), "silent", 500, "step 3 of 10"),
    ("node lost", JobState(job(), [pod(), worker(ready=False)], progress=PROGRESS), "lost_node", 25,
     "node-2"),
    ("node lost, and steps are long",
     JobState(job(), [pod(), worker(ready=False)], progress=PROGRESS, step_seconds=40), "lost_node", 90, "no step"),
    ("a probe fails, and the node is well",
     JobState(job(), [pod(), worker(ready=False, probed=False)], progress=PROGRESS), "silent", 500, "step 3"),
    ("node lost, and its peer noticed", JobState(job("Failed"), [pod(**ended(1, message=BROKEN)), worker(ready=False)]),
     "lost_node", 0, "node-2"),
    ("worker deleted", JobState(job(), [pod(), worker(leaving=True)]), "pod_deleted", 3, "somebody"),
    ("worker deleted, and the job failed of it",
     JobState(job("Failed"), [], outcomes=[outcome(End.RETRYABLE)], deleted=[worker(leaving=True)]), "pod_deleted", 0,
     "job-worker-0"),
    ("worker replaced", JobState(job(), [pod(), worker(uid="new")], first_uids={"job-worker-0": "old"}),
     "pod_replaced", 0, "made another"),
    ("preempted", JobState(job(), [pod(), worker(leaving=True, disruption="PreemptionByScheduler")]), "preempted", 3,
     "why"),
    ("evicted by the API", JobState(job(), [pod(), worker(leaving=True, disruption="EvictionByEvictionAPI")]),
     "evicted", 3, ""),
    ("evicted by the kubelet", JobState(job(), [pod(), worker(phase="Failed", reason="Evicted", message="disk")]),
     "evicted", 0, "disk"),
    ("evicted for what it wrote", JobState(job(), [pod(), worker(phase="Failed", reason="Evicted", message=FULL)]),
     "configuration", 0, "train_job.resources"),
    ("node restarted", JobState(job("Failed"), [pod(**ended(255, "Unknown"))]), "lost_node", 0, "came back without it"),
    ("killed", JobState(job("Failed"), [pod(**ended(137))]), "killed", 3, "signal 9"),
    ("killed, while the other pod may yet tell why", JobState(job("Failed"), [pod(**ended(137)), worker()]), "killed",
     35, "signal 9"),
    ("an image of something else", JobState(job("Failed"), [pod(**ended(1))]), "configuration", 3, "of this release"),
    ("an outcome whose termination message was cut",
     JobState(job("Failed"), [pod("pod-0", **ended(1, message=BROKEN[:99]))],
     outcomes=[outcome(End.STORE_UNREACHABLE)]),
     "store_unreachable", 0, "said so"),
    ("an init container failed", JobState(job("Failed"), [worker(phase="Failed", initContainerStatuses=INIT)]),
     "killed", 3, "init-pytorch: ended with exit code 1"),
    ("outcome in the run root", JobState(job("Failed"), [pod(**ended(1))], outcomes=[outcome(End.USER_ERROR)]),
     "user_error", 0, "said so"),
    ("outcome in the termination message", JobState(job("Failed"), [pod(**ended(1, message=WORDS))]), "non_finite", 0,
     "said so"),
    ("user error of one, broken peer of the other",
     JobState(job("Failed"), [], outcomes=[outcome(End.RETRYABLE), outcome(End.USER_ERROR, 1)]), "user_error", 0,
     "pod-1"),
    ("orphaned", JobState(job("Failed"), [], outcomes=[outcome(End.ORPHANED)]), "orphaned", 0, ""),
    ("store gone, said the pod", JobState(job("Failed"), [], outcomes=[outcome(End.STORE_UNREACHABLE)]),
     "store_unreachable", 0, ""),
    ("store gone", JobState(job(), [pod(), worker()], progress=PROGRESS, store_error="refused"), "store_unreachable",
     500, "refused"),
    ("deadline", JobState(job("Failed", message="active longer than specified deadline")), "deadline", 0, "longer"),
    ("failed, nobody knows why", JobState(job("Failed", message="1 Worker replica(s) failed")), "failed", 3, "replica"),
    ("suspended", JobState(job("Suspended", suspend=True)), "suspended", 100, ""),
    ("waiting in a queue",
     JobState(job("Suspended", suspend=True) | {"metadata": {"name": "j", "uid": "u", "labels": {QUEUE: "team-a"}}}),
     "suspended", 100, "team-a"),
    ("suspended, and its pods have been stopped", JobState(job(suspend=True), [pod(**ended(143))]), "suspended", 100,
     ""),
    ("suspended while its pods leave", JobState(job(suspend=True), [pod(leaving=True)]), "suspended", 100, ""),
    ("no pods, no events allowed", JobState(job(), events=None), "pods_not_created", 100, "2 of 2 pods"),
    ("one pod missing", JobState(job(), [pod()]), "pods_not_created", 100, "1 of 2 pods"),
    ("quota used up", JobState(job(), [pod()], [event(QUOTA.format("1Gi"))]), "quota", 100, "exceeded quota"),
    ("quota too small for all pods", JobState(job(), [pod()], [event(QUOTA.format("1536Mi"))]), "quota", 0, "1536Mi"),
    ("quota too small for ever", JobState(job(), [pod()], [event(QUOTA.format("3Gi"))]), "quota", 0,
     "limits.memory=3Gi"),
    ("pod security", JobState(job(), [], [event('pods "x" is forbidden: violates PodSecurity "restricted"')]),
     "rejected", 15, "PodSecurity"),
]  # fmt: skip


@pytest.mark.parametrize(("observed", "kind", "grace", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_seen_gives_the_class(observed: JobState, kind: str, grace: float, words: str) -> None:
    first = diagnose(observed, BUDGETS)[0]
    assert (first.kind, first.grace) == (kind, grace)
    assert words in first.seen


def test_a_training_job_may_run_for_so_long_and_no_longer() -> None:
    observed = JobState(job(), [pod(), worker()], progress=PROGRESS)
    assert [(s.kind, s.grace) for s in diagnose(observed, BUDGETS)] == [("silent", 500), ("running", 600)]


def test_the_time_that_training_may_take_goes_on_while_the_store_is_away() -> None:
    observed = JobState(job(), [pod(), worker()], progress=PROGRESS, store_error="refused")
    assert [(s.kind, s.grace) for s in diagnose(observed, BUDGETS)] == [("store_unreachable", 500), ("running", 600)]


def test_an_api_server_is_waited_for_while_steps_are_made() -> None:
    grace, later = GracePeriods(), PROGRESS.model_copy(update={"step": 4})
    assert not grace.exceeded(api_unreachable(JobState(None, progress=PROGRESS), "refused", BUDGETS), 0)
    assert not grace.exceeded(api_unreachable(JobState(None, progress=later), "refused", BUDGETS), 500)
    assert not grace.exceeded(api_unreachable(JobState(None, progress=later), "", BUDGETS), 501)
    assert not grace.exceeded(api_unreachable(JobState(None, progress=later), "refused", BUDGETS), 502)
    over = grace.exceeded(api_unreachable(JobState(None, progress=later), "refused", BUDGETS), 1002)
    assert over is not None
    assert over.kind == "api_unreachable"


def test_a_pull_that_may_yet_succeed_ends_with_the_budget_and_says_what_failed() -> None:
    refused = pod(**waiting("ImagePullBackOff", 'Back-off pulling image "some:tag": dial tcp: connection refused'))
    found, grace = diagnose(JobState(job(), [worker(), refused]), BUDGETS), GracePeriods()
    assert (
        grace.exceeded(diagnose(JobState(job(), [worker(), pod(**waiting("ContainerCreating"))]), BUDGETS), 0) is None
    )
    assert grace.exceeded(found, 299) is None
    over = grace.exceeded(found, 300)
    assert over is not None
    assert "container pytorch: ImagePullBackOff: " in over.seen
    assert "connection refused (image some:tag)" in over.seen


def test_words_in_the_images_own_name_are_no_verdict() -> None:
    said = pod(**waiting("ErrImagePull", "failed to pull denied:1: connection refused"))
    said["spec"]["containers"][0]["image"] = "denied:1"
    assert diagnose(JobState(job(), [said, worker()]), BUDGETS)[0].grace == 300


def test_a_step_made_meanwhile_starts_the_clock_of_a_lost_node_anew() -> None:
    about = []
    for step in (3, 4):
        progress = PROGRESS.model_copy(update={"step": step})
        about.append(diagnose(JobState(job(), [pod(), worker(ready=False)], progress=progress), BUDGETS)[0].about)
    assert about[0] != about[1]


def test_phases_in_their_order() -> None:
    seen: list[Sequence[dict[str, Any]]] = [
        [pod()],
        [pod(), worker(scheduled=False)],
        [pod(), worker(**waiting("ContainerCreating"))],
        [pod(), worker()],
    ]
    assert [phase(JobState(job(), pods)) for pods in seen] == ["admission", "scheduling", "image", "start"]


def test_patience_ends_when_a_symptom_has_stood_for_its_time() -> None:
    grace, slow = GracePeriods(), Finding("image", "image", "slow", 30)
    assert grace.exceeded([slow], 100) is None
    assert grace.exceeded([slow], 129.9) is None
    assert grace.exceeded([slow], 130) is slow


def test_patience_starts_anew_when_the_symptom_went_away_or_is_about_something_else() -> None:
    grace = GracePeriods()
    lost, after_a_step = Finding("lost_node", "lost 3", "", 5), Finding("lost_node", "lost 4", "", 5)
    assert grace.exceeded([lost], 0) is None
    assert grace.exceeded([after_a_step], 6) is None
    assert grace.exceeded([], 9) is None
    assert grace.exceeded([after_a_step], 12) is None
    assert grace.exceeded([after_a_step], 17) is after_a_step


def test_what_is_said_has_stood_for_a_while() -> None:
    grace, brief, long = GracePeriods(), Finding("image", "brief", "", 9), Finding("image", "long", "", 9)
    grace.exceeded([long], 0)
    grace.exceeded([long, brief], 2)
    assert grace.lasting([long, brief], 3, 2) == [long]
