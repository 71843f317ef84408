"""Whether Kueue will keep a training job in its queue until it is its turn."""

from __future__ import annotations

from steerlm_core.kube.api.client import KubeApi, Object
from steerlm_core.kube.preflight.check import Check, State

_WHAT = "Kueue"
_GROUP = "/apis/kueue.x-k8s.io"
_INTEGRATION = "kubeflow.org/pytorchjob"


def queue(api: KubeApi, name: str, job: Object | None) -> Check:
    """Look for a queue, and whether Kueue heeds the label that names it.

    Args:
        api: The API server.
        name: The LocalQueue.
        job: The job as a dry run returned it: Kueue suspends what it manages; None: none was made.
    """
    group = api.get(_GROUP)
    if group is None:
        found = "the cluster has no Kueue: nobody heeds the queue, and the job starts at once"
        return Check(_WHAT, State.WARNING, found, "Install Kueue, or leave train_job.queue out.")
    version = group["preferredVersion"]["groupVersion"]
    if api.get(f"/apis/{version}/namespaces/{api.namespace}/localqueues/{name}") is None:
        found = f"there is no LocalQueue {name}: the job would wait for ever"
        return Check(_WHAT, State.FAILED, found, f"kubectl -n {api.namespace} get localqueues   # train_job.queue")
    there = f"LocalQueue {name} is there"
    if job is None:
        found = f"{there}; whether Kueue heeds PyTorchJobs shows in a dry run of the job, which was not made"
        return Check(_WHAT, State.UNKNOWN, found)
    if not job["spec"].get("runPolicy", {}).get("suspend"):
        found = f"{there}, and Kueue does not hold the job, which starts at once: {_INTEGRATION} is off by default"
        edit = "kubectl -n kueue-system edit configmap kueue-manager-config"
        return Check(_WHAT, State.WARNING, found, f"{edit}   # integrations.frameworks: [{_INTEGRATION}]")
    return Check(_WHAT, State.OK, f"{there}, and Kueue holds the job until its turn")
