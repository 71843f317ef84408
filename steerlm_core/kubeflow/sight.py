"""A run as it stands: its state from Kubeflow; its steps from its root where that can be read, else from Kubeflow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from steerlm_core.kubeflow.client import Kubeflow
from steerlm_core.kubeflow.run_root import WITHOUT_EVENTS, RunRoot
from steerlm_core.kubeflow.runs import get_run, has_ended, parameters
from steerlm_core.kubeflow.steps import BROKEN_OFF, NOT_KNOWN, Pipeline, Step, as_left, pipeline_of, steps_of
from steerlm_core.kubeflow.tasks import Task, tasks_of

WHY_LISTS_END = "as it does for good once the Workflow is larger than 1 MiB"


@dataclass(frozen=True)
class Sight:
    """What can be seen of a run at one moment.

    Attributes:
        run: The run, as Kubeflow gives it.
        pipeline: The names of its pipeline.
        tasks: What Kubeflow lists of it.
        root: What its root tells.
        steps: Its steps.
        news: What its root has told since the last look, besides its steps.
    """

    run: Any
    pipeline: Pipeline
    tasks: list[Task]
    root: RunRoot
    steps: list[Step]
    news: list[str]

    @property
    def changed(self) -> datetime:
        """When something of it last began or ended."""
        history = [each.update_time for each in self.run.state_history or []]
        spans: list[Task | Step] = [*self.tasks, *self.steps]
        moments: list[datetime] = [self.run.created_at, *history, *(span.end or span.start for span in spans)]
        return max(moments)

    @property
    def list_ended(self) -> datetime | None:
        """When Kubeflow's list of an ended run stopped, if it did before the run; None where it is whole."""
        open_ends = has_ended(self.run) and any(task.end is None for task in self.tasks)
        return max(task.end or task.start for task in self.tasks) if open_ends else None

    @property
    def unknown(self) -> Iterator[str]:
        """Yield what is not known of the steps, and why."""
        if self.root.heard or not self.tasks:
            return
        if why := self.root.unreadable:
            yield f"The run root cannot be read from here; the steps are those that Kubeflow lists. {why}"
        if self.list_ended:
            yield list_ended(self.list_ended)


class Looking:
    """Looks at a run again and again."""

    def __init__(self, kubeflow: Kubeflow, run_id: str) -> None:
        """Find the run.

        Raises:
            KubeflowError: There is none of this id.
        """
        self._run = get_run(kubeflow, run_id)
        self._pipeline, self._root = pipeline_of(kubeflow, self._run), RunRoot(self._run)

    def look(self, run: Any = None) -> Sight:
        """Return what can be seen.

        Args:
            run: The run as it is now; None: as it was found.
        """
        run, news = run or self._run, self._root.look()
        tasks = tasks_of(run)
        listed = [as_left(step, run, NOT_KNOWN) for step in steps_of(tasks, self._pipeline)]
        said = [as_left(step, run, BROKEN_OFF) for step in self._root.steps(_shards(run, tasks))]
        if said:
            listed = [step for step in listed if step.name in WITHOUT_EVENTS]
        steps = sorted([*listed, *said], key=lambda step: step.start)
        return Sight(run, self._pipeline, tasks, self._root, steps, news)


def list_ended(when: datetime) -> str:
    """Return the words for a list of tasks that goes on no more."""
    return f"From {clock(when)} on the steps are not known: Kubeflow's list ended there, {WHY_LISTS_END}."


def clock(when: datetime) -> str:
    """Return a time as people here have it."""
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}"


def _shards(run: Any, tasks: list[Task]) -> int:
    """Return how many shards a step has that is split: the turns of a loop, or as many as were asked for."""
    return max((task.turns for task in tasks if task.turns > 1), default=int(parameters(run).get("shards") or 1))
