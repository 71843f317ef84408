"""Jobs of the same run that are in the way of the next: made otherwise for the same step, or done with.

A job that has succeeded has committed its model, and the launcher's log has its master's. It is deleted when a later
iteration trains: a quota may count objects, and counts the finished ones too. The last one of a run goes by its own
`ttlSecondsAfterFinished`.
"""

from __future__ import annotations

from collections.abc import Callable

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import DENIED_SECONDS, KubeApi, Object, patiently
from steerlm_core.kube.job.pod_template import CONTAINER
from steerlm_core.kube.job.spec import ITERATION, RUN, STAGE
from steerlm_core.kube.job.state import condition, name_of, uid_of
from steerlm_core.kube.launch.submit import clear, remove

_API_SECONDS = 300.0


def make_way(api: KubeApi, manifest: Object, say: Callable[[str], None]) -> None:
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
            clear(api, name_of(job), uid_of(job), say)
        elif _is_done_with(job, labels[ITERATION]):
            remove(api, name_of(job), uid_of(job), 0.0)


def _is_rival(job: Object, iteration: str) -> bool:
    """Whether a job of an earlier platform file or release works on the same step."""
    over = condition(job, "Succeeded") or condition(job, "Failed")
    return job["metadata"]["labels"][ITERATION] == iteration and not over


def _is_done_with(job: Object, iteration: str) -> bool:
    """Whether a job has trained an earlier iteration: it succeeds only once the model's manifest is committed."""
    earlier = int(job["metadata"]["labels"][ITERATION]) < int(iteration)
    return earlier and condition(job, "Succeeded") is not None


def _root_of(job: Object) -> str:
    """The run root that a job trains for: two copies of a run share its id."""
    (container,) = (
        found
        for found in job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        if found["name"] == CONTAINER
    )
    arguments = container["args"]
    return str(arguments[arguments.index("--root") + 1])
