"""What a cluster tells of a run of Kubeflow Pipelines from outside: its Workflow, what its pods wait for, its jobs.

Kubeflow labels the Workflow and all of its pods with the run's id; Argo notes on a pod which node of the Workflow it
is; a training job names the Workflow as its owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, ForbiddenError, KubeApi, KubeObject
from steerlm_core.kube.job.state import has_ended, has_started, name_of, unscheduled, waiting

_RUN_ID = "pipeline/runid"
_NODE = "workflows.argoproj.io/node-name"


@dataclass(frozen=True)
class PodAtWork:
    """A pod that has not ended.

    Attributes:
        name: Its name.
        node: Full name of the Workflow's node that it is.
        waits_for: What keeps it from running; "" where it runs.
    """

    name: str
    node: str
    waits_for: str


class PipelineRun:
    """A run, by its id in Kubeflow; every question raises ClusterError where it may not be asked."""

    def __init__(self, api: KubeApi, run_id: str) -> None:
        """Name the run; nothing is asked yet."""
        self._api, self._run_id = api, run_id

    @property
    def namespace(self) -> str:
        """Where it is looked for."""
        return self._api.namespace

    def workflow(self) -> str | None:
        """Return the name of its Workflow; None where there is none."""
        found = self._labelled(paths.workflows(self.namespace), self._run_id)
        return name_of(found[0]) if found else None

    def has_any_of(self, run_ids: Iterable[str]) -> bool:
        """Whether the Workflow of any of these runs is in this cluster."""
        ids = list(run_ids)
        return bool(ids) and bool(self._labelled(paths.workflows(self.namespace), *ids))

    def pods(self) -> list[PodAtWork]:
        """Return its pods that have not ended."""
        pods = [pod for pod in self._labelled(paths.pods(self.namespace), self._run_id) if not has_ended(pod)]
        return [PodAtWork(name_of(pod), _node(pod), self._waits_for(pod)) for pod in pods]

    def jobs(self, workflow: str) -> list[str]:
        """Return the training jobs that a Workflow owns."""
        try:
            listed = self._api.request("GET", paths.jobs(self.namespace))["items"]
        except ClusterError as error:
            if error.status == 404:  # nobody has installed the operator, so there are no jobs
                return []
            raise
        return [name_of(job) for job in listed if workflow in _owners(job)]

    def _waits_for(self, pod: KubeObject) -> str:
        if has_started(pod):
            return ""
        if words := unscheduled(pod):
            return words
        stuck = list(waiting(pod))
        words = "; ".join(f"container {where}: {reason}: {said}".rstrip(": ") for where, reason, said in stuck)
        warning = "" if any(said for _, _, said in stuck) else self._last_warning(pod)
        return " ".join(filter(None, (words or "its containers are not there yet", warning)))

    def _last_warning(self, pod: KubeObject) -> str:
        """Return what was last said of a pod, such as a volume that cannot be mounted; "" where that is forbidden."""
        query = {"fieldSelector": f"involvedObject.name={name_of(pod)},type=Warning"}
        try:
            events = self._api.request("GET", paths.events(self.namespace), query=query)["items"]
        except ForbiddenError:
            return ""
        return f"({max(events, key=lambda event: event['metadata']['creationTimestamp'])['message']})" if events else ""

    def _labelled(self, path: str, *run_ids: str) -> list[KubeObject]:
        query = {"labelSelector": f"{_RUN_ID} in ({','.join(run_ids)})"}
        items: list[KubeObject] = self._api.request("GET", path, query=query)["items"]
        return items


def _node(pod: KubeObject) -> str:
    return str(pod["metadata"].get("annotations", {}).get(_NODE, ""))


def _owners(job: KubeObject) -> list[str]:
    return [owner["name"] for owner in job["metadata"].get("ownerReferences", []) if owner["kind"] == "Workflow"]
