"""What a run waits for in which nothing has begun or ended for a while: Kubeflow calls it running, however long.

The pods say it, where the cluster may be asked: no node for one, an image or a container that cannot start. Else there
is the run's page. Where the root cannot be read, Kubeflow's list may also have ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from steerlm_core.kube.api.client import ClusterError
from steerlm_core.kube.launch.pipeline_run import PodAtWork
from steerlm_core.kubeflow.client import Kubeflow
from steerlm_core.kubeflow.gone import in_cluster
from steerlm_core.kubeflow.runs import CANCELING, has_ended
from steerlm_core.kubeflow.sight import WHY_LISTS_END, Sight, list_ended
from steerlm_core.kubeflow.tasks import names_of_node
from steerlm_core.observe.text import duration

SILENCE_SECONDS = 120.0


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def silence(sight: Sight) -> float:
    """Return for how many seconds nothing of a run has begun or ended; 0 while that is not long, or it has ended."""
    seconds = (now() - sight.changed).total_seconds()
    return 0.0 if has_ended(sight.run) or seconds < SILENCE_SECONDS else seconds


def what_it_waits_for(kubeflow: Kubeflow, sight: Sight, page: str) -> str:
    """Return what a silent run waits for, or that it is at work.

    Args:
        kubeflow: Where it is.
        sight: The run.
        page: Where a person can see more.
    """
    try:
        pods, unseen = in_cluster(kubeflow, sight.run).pods(), ""
    except ClusterError as error:
        pods, unseen = [], str(error).rstrip(".")
    silent = _Silent(sight, pods, unseen, page)
    return " ".join([f"Nothing has begun or ended for {duration(silence(sight))}.", *silent.sentences()])


@dataclass(frozen=True)
class _Silent:
    """A run that is silent, and what its pods say.

    Attributes:
        sight: The run.
        pods: Its pods that have not ended.
        unseen: Why they cannot be asked; "" where they can.
        page: Where a person can see more.
    """

    sight: Sight
    pods: list[PodAtWork]
    unseen: str
    page: str

    def sentences(self) -> Iterator[str]:
        """Yield what it waits for, and what is at work."""
        if self.sight.run.state == CANCELING:
            yield (
                "It was terminated, and has not ended: its Workflow may be gone; "
                f"`steerlm kubeflow stop {self.sight.run.run_id}` finds out."
            )
        for pod in self.pods:
            if pod.waits_for:
                yield f"{self._title(pod)} waits (pod {pod.name}): {pod.waits_for.rstrip('.')}."
        if at_work := self._at_work():
            yield f"At work: {'; '.join(at_work)}."
        if not self.sight.root.heard:
            yield from self._list()
        if self.unseen:
            yield f"What its pods wait for cannot be asked from here ({self.unseen}); see {self.page}"
        elif not self.pods:
            yield f"No pod of it is in the cluster that the kubeconfig leads to; see {self.page}"

    def _at_work(self) -> list[str]:
        """Return what is at work, by the run root, by the pods, or by Kubeflow's list where neither can be asked."""
        if self.sight.root.heard:
            return self.sight.root.at_work()
        if self.unseen:
            return [step.title for step in self.sight.steps if step.state == "RUNNING"]
        return [f"{self._title(pod)} (pod {pod.name})" for pod in self.pods if not pod.waits_for]

    def _list(self) -> Iterator[str]:
        """Yield whether Kubeflow's list has ended: pods tell that have no place in it."""
        listed = {task.names for task in self.sight.tasks}
        if any(names_of_node(pod.node) not in listed for pod in self.pods if pod.node):
            yield list_ended(self.sight.changed)
        elif self.unseen and any(step.part for step in self.sight.steps):
            yield f"Perhaps Kubeflow's list of the steps has ended, {WHY_LISTS_END}."

    def _title(self, pod: PodAtWork) -> str:
        place = self.sight.pipeline.place(names_of_node(pod.node))
        return f"{place.title or 'the start'}{', the driver' if place.is_driver else ''}"
