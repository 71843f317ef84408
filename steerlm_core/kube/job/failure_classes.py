"""The classes that an attempt can end with: which are worth another attempt, and what a person can do."""

from __future__ import annotations

from steerlm_core import layout
from steerlm_core.errors import SteerLMError

DONE = "done"

# A new attempt goes on from the last checkpoint and may well succeed. Everything else needs a person.
RETRIED = frozenset(
    {
        "retryable", "stopped", "orphaned", "store_unreachable", "lost_node", "evicted", "preempted",
        "pod_deleted", "pod_replaced", "killed", "failed", "silent", "not_started",
    }
)  # fmt: skip

# Of several reasons the first in this order is told: a broken peer is the consequence of what another pod died of.
PRECEDENCE = (
    "user_error", "non_finite", "out_of_memory", "image", "configuration", "deadline", "lost_node", "preempted",
    "evicted", "pod_deleted", "store_unreachable", "orphaned", "retryable", "stopped", "killed", "failed",
)  # fmt: skip
INCONCLUSIVE = frozenset({"retryable", "stopped", "killed", "failed"})

_LOGS = layout.job_logs("<job>")

# What pods say of themselves (user_error, non_finite, out_of_memory) names its way out already.
REMEDIES = {
    "api_unreachable": "Look at the API server, and at the training-operator: every create passes its webhook.",
    "configuration": "Repair what is named (a secret, a config map, a command), then run again.",
    "evicted": "See what the node was short of, and ask for all that the pods use (train_job.resources).",
    "failed": f"Nobody says why: look at the job's events and at what stands in {_LOGS} of the run root.",
    "deadline": "Raise train_job.active_deadline_seconds; the next run goes on from the last checkpoint.",
    "forbidden": "Have an administrator bind the launcher's role to this account; `steerlm doctor --kubernetes` lists "
    "what is missing.",
    "image": "Check image.name, image.pull_secrets and image.pull_policy in the platform file.",
    "job_deleted": "Somebody deleted it. The same command starts a new job from the last checkpoint.",
    "killed": "Look at the log and at the node: no limit was reached, so somebody or something sent that signal.",
    "lost_node": "Look at the node. What comes next goes on elsewhere, from the last checkpoint.",
    "name_taken": "Delete that job if it is of no use (kubectl delete pytorchjob), then run again.",
    "no_operator": "Install training-operator 1.9; `steerlm doctor --kubernetes` tells what is there.",
    "not_committed": "The job ended well, but left no model manifest: look at train_job.patch and at the log.",
    "not_started": "Ranks may not reach each other, or inputs are slow to come: see the log, or raise "
    "train_job.budgets.start.",
    "pods_not_created": "The cause could not be read from events. Likely: a quota that is used up, a Pod Security "
    "level, a missing service account, or a training-operator that does not run; `steerlm doctor --kubernetes` tells.",
    "orphaned": "Keep the launcher running (in a pod, or under a supervisor), or raise train_job.orphan_after_seconds.",
    "pod_deleted": "Ask who deletes pods in this namespace. What comes next goes on from the last checkpoint.",
    "pod_replaced": "Ask who deletes pods in this namespace. What comes next goes on from the last checkpoint.",
    "preempted": "Give the job a higher train_job.priority_class, or a queue of its own.",
    "quota": "Ask for less (train_job.resources, train_job.nodes), or have the quota raised.",
    "rejected": "Change what is refused, in the platform file or its patch; `steerlm doctor --kubernetes` tries it.",
    "retryable": f"If it comes again: see {_LOGS} in the run root for the first rank that failed.",
    "running": "Raise train_job.budgets.running; the next run goes on from the last checkpoint.",
    "silent": "Raise train_job.budgets.silence if a step takes that long; see the log.",
    "stopped": "Something outside ended the pods, such as a drained node; what comes next goes on from the checkpoint.",
    "store_unreachable": "Check object_store in the platform file, and the store itself.",
    "suspended": "Resume it (spec.runPolicy.suspend: false), or look at the queue.",
    "terminated": "The run was terminated; the same command goes on from the last checkpoint.",
    "unschedulable": "Ask for less (train_job.resources, accelerator), loosen node_selector, tolerations or affinity, "
    "or add nodes.",
}


class TrainJobError(SteerLMError):
    """A training job ended badly; `kind` is the class of its end."""

    def __init__(self, kind: str, message: str) -> None:
        """Keep the class beside the words."""
        super().__init__(message)
        self.kind = self.reason = kind


def failure_message(kind: str, job: str, seen: str, log: str = "") -> str:
    """Put a verdict into words: the job, the class, what was seen, the way out, and the log's last lines."""
    tail = log.rstrip().splitlines()[-15:]
    lines = [f"job {job}: {kind}: {seen.rstrip('.')}. {REMEDIES.get(kind, '')}".rstrip()]
    return "\n".join([*lines, *(["The last lines of its log:"] if tail else []), *(f"  {line}" for line in tail)])
