"""Deleting jobs: one and its pods; and those of the same run that are in the way of the next.

In the way are those made otherwise for the same step, and those done with. A job that has succeeded has committed its
model, and the launcher's log has its master's. It is deleted when a later iteration trains: a quota may count objects,
and counts the finished ones too. The last one of a run goes by its own `ttlSecondsAfterFinished`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import DENIED_SECONDS, ClusterError, KubeApi, KubeObject, patiently
from steerlm_core.kube.job.pod_template import CONTAINER, pod_selector
from steerlm_core.kube.job.spec import ITERATION, RUN, STAGE
from steerlm_core.kube.job.state import has_ended, is_on_lost_node, is_owned_by, name_of, true_condition, uid_of

DELETE_SECONDS = 180.0
_API_SECONDS = 300.0


def delete(api: KubeApi, job: str, uid: str) -> bool:
    """Delete a job, and do not wait; its pods end in their own time. One that is gone is no error."""
    options: KubeObject = {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "propagationPolicy": "Background",
        "preconditions": {"uid": uid},
    }
    try:
        api.request("DELETE", paths.job(api.namespace, job), options)
    except ClusterError as error:
        if error.status not in (404, 409):  # gone, or another by now
            raise
    return True


def delete_and_wait(api: KubeApi, job: str, uid: str, seconds: float) -> bool:
    """Delete a job and wait until none of its pods runs; returns whether that was seen.

    A pod whose node is lost cannot be waited for: nobody there answers.

    Args:
        api: The cluster.
        job: Name of the job.
        uid: Its uid, so that one made anew under its name is left alone.
        seconds: How long to wait.
    """
    start, asked = time.monotonic(), False
    while True:
        try:
            asked = asked or delete(api, job, uid)
            listed = api.request("GET", paths.pods(api.namespace), query=pod_selector(job))
            if not any(_runs(pod, uid) for pod in listed["items"]):
                return True
        except ClusterError as error:
            if not error.transient and error.status != 403:  # a server that has just started knows no permissions
                raise
        if time.monotonic() - start >= seconds:
            return False
        time.sleep(random.uniform(0.5, 1.0))


def delete_and_warn(api: KubeApi, job: str, uid: str, say: Callable[[str], None]) -> None:
    """Delete a job, and say so where a pod of it runs on."""
    if not delete_and_wait(api, job, uid, DELETE_SECONDS):
        say(f"job {job}: deleted, but a pod of it still runs after {DELETE_SECONDS:.0f} s")


def _runs(pod: KubeObject, job_uid: str) -> bool:
    return is_owned_by(pod, job_uid) and not has_ended(pod) and not is_on_lost_node(pod)


def delete_superseded(api: KubeApi, manifest: KubeObject, say: Callable[[str], None]) -> None:
    """Delete what is in the way of a job.

    Args:
        api: The cluster.
        manifest: The job that is wanted.
        say: Is told of a job that is ended for it.
    """
    labels = manifest["metadata"]["labels"]
    query = {"labelSelector": ",".join(f"{key}={labels[key]}" for key in (RUN, STAGE))}
    listed = patiently(lambda: api.request("GET", paths.jobs(api.namespace), query=query), _API_SECONDS, DENIED_SECONDS)
    for job in listed["items"]:
        if name_of(job) == name_of(manifest) or _root_of(job) != _root_of(manifest):
            continue
        if _is_rival(job, labels[ITERATION]):
            say(f"job {name_of(job)} is for the same step, made otherwise: it is deleted for {name_of(manifest)}")
            delete_and_warn(api, name_of(job), uid_of(job), say)
        elif _is_done_with(job, labels[ITERATION]):
            delete_and_wait(api, name_of(job), uid_of(job), 0.0)


def _is_rival(job: KubeObject, iteration: str) -> bool:
    """Whether a job of an earlier platform file or release works on the same step."""
    over = true_condition(job, "Succeeded") or true_condition(job, "Failed")
    return job["metadata"]["labels"][ITERATION] == iteration and not over


def _is_done_with(job: KubeObject, iteration: str) -> bool:
    """Whether a job has trained an earlier iteration: it succeeds only once the model's manifest is committed."""
    earlier = int(job["metadata"]["labels"][ITERATION]) < int(iteration)
    return earlier and true_condition(job, "Succeeded") is not None


def _root_of(job: KubeObject) -> str:
    """The run root that a job trains for: two copies of a run share its id."""
    (container,) = (
        found
        for found in job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        if found["name"] == CONTAINER
    )
    arguments = container["args"]
    return str(arguments[arguments.index("--root") + 1])
