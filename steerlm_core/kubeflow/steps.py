"""The steps of a run under the names of its pipeline, each once, its shards counted.

tasks of the Workflow ─► names of the pipeline ─► steps: generate 2/2 of iteration-0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kfp_server_api import ApiException

from steerlm_core.kubeflow.client import Kubeflow
from steerlm_core.kubeflow.runs import ENDED, has_ended, retried_at, state_word, was_terminated
from steerlm_core.kubeflow.tasks import Task
from steerlm_core.observe.text import duration

BROKEN_OFF, NOT_KNOWN, TERMINATED, TO_BE_RETRIED = "BROKEN_OFF", "NOT_KNOWN", "TERMINATED", "TO_BE_RETRIED"
_DRIVER = "-driver"


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        part: The iteration, or "".
        name: Name of the step.
        state: RUNNING, SUCCEEDED, FAILED, …
        start: When it began.
        end: When it ended; None while it has not.
        done: Shards that have succeeded.
        shards: Shards that there are.
    """

    part: str
    name: str
    state: str
    start: datetime
    end: datetime | None = None
    done: int = 0
    shards: int = 1

    @property
    def counted(self) -> str:
        """Its name, and how many of its shards are done where it has several."""
        return f"{self.name} {self.done}/{self.shards}" if self.shards > 1 else self.name

    @property
    def title(self) -> str:
        """Iteration and name."""
        return f"{self.part} {self.name}".strip()

    @property
    def took(self) -> str:
        """How long it took, in words; "" while it has not ended."""
        return duration((self.end - self.start).total_seconds()) if self.end else ""

    @property
    def line(self) -> str:
        """What is printed once it has ended."""
        return f"{f'{self.part} {self.counted}'.strip():<32} {state_word(self.state):<11} {self.took}".rstrip()


@dataclass(frozen=True)
class Place:
    """What a node of the Workflow is, in the names of the pipeline.

    Attributes:
        part: The iteration that it stands in, or "".
        name: The task that it belongs to.
        runs: Whether the task runs a container, and holds no other tasks.
        is_task: Whether the node is the task itself, and not its driver or something inside of it.
        is_driver: Whether it is Kubeflow's driver before the task.
    """

    part: str
    name: str
    runs: bool
    is_task: bool
    is_driver: bool

    @property
    def title(self) -> str:
        """Iteration and name."""
        return f"{self.part} {self.name}".strip()


class Pipeline:
    """The names of a run's pipeline; of one that has been deleted there are none, and no step is recognised."""

    def __init__(self, spec: Mapping[str, Any] | None) -> None:
        """Take what the API gives of a pipeline."""
        found = (spec or {}).get("pipeline_spec") or spec or {}
        self._root, self._components = found.get("root", {}), found.get("components", {})

    def place(self, names: Sequence[str]) -> Place:
        """Return what the node is that these names lead to; drivers and loops add some that the pipeline has not."""
        inside, part, name, component, reached = "", "", "", self._root, ""
        for reached in names:
            tasks = component.get("dag", {}).get("tasks", {})
            if task := tasks.get(reached) or tasks.get(reached.removesuffix(_DRIVER)):
                component, name, part = self._components[task["componentRef"]["name"]], task["taskInfo"]["name"], inside
                inside = part if _only_groups(task) or "dag" not in component else name
                is_task = reached in tasks
            else:
                is_task = False
        return Place(part, name, "dag" not in component, is_task, reached.endswith(_DRIVER) and not is_task)


def _only_groups(task: Mapping[str, Any]) -> bool:
    """Whether a nested pipeline is a loop or a condition, whose tasks are those of what it stands in."""
    return "parameterIterator" in task or "condition" in task.get("triggerPolicy", {})


def pipeline_of(kubeflow: Kubeflow, run: Any) -> Pipeline:
    """Return a run's pipeline; a scheduled run refers to an uploaded version, which has it."""
    version = run.pipeline_version_reference
    if run.pipeline_spec or not version or not version.pipeline_version_id:
        return Pipeline(run.pipeline_spec)
    try:
        found = kubeflow.client.get_pipeline_version(version.pipeline_id, version.pipeline_version_id)
    except ApiException as error:
        if error.status == 404:
            return Pipeline(None)
        raise
    return Pipeline(found.pipeline_spec)


def steps_of(tasks: Iterable[Task], pipeline: Pipeline) -> list[Step]:
    """Return the steps of a run that have begun, or whose driver has failed, in the order in which they did."""
    shards: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        place = pipeline.place(task.names)
        begun = place.is_task and task.state not in ("", "SKIPPED")
        if place.runs and (begun or (place.is_driver and task.state == "FAILED")):
            shards.setdefault((place.part, place.name), []).append(task)
    return [
        together(*where, [(task.state, task.start, task.end) for task in every], every[0].turns)
        for where, every in shards.items()
    ]


def together(part: str, name: str, shards: Sequence[tuple[str, datetime, datetime | None]], count: int) -> Step:
    """Return a step of its shards.

    Args:
        part: The iteration, or "".
        name: Its name.
        shards: State, start and end of those that have begun.
        count: Shards that there are to be.
    """
    states, ends = [state for state, _, _ in shards], [end for _, _, end in shards if end]
    over = all(state in ENDED for state in states) and len(ends) >= count
    state = "FAILED" if "FAILED" in states else "RUNNING" if not over else max(states, key=states.count)
    end = max(ends) if ends and (over or state == "FAILED") else None
    start = min(start for _, start, _ in shards)
    return Step(part, name, state, start, end, states.count("SUCCEEDED"), count)


def as_left(step: Step, run: Any, unfinished: str) -> Step:
    """Return a step of a run that was retried or has ended, where its own state is from before that.

    Args:
        step: The step.
        run: The run.
        unfinished: What is called so that had not ended when the run did.
    """
    again, ended = retried_at(run), has_ended(run)
    if step.state == "FAILED" and again and step.end and step.end <= again:
        return replace(step, state=TO_BE_RETRIED)
    if was_terminated(run) and step.state in ("FAILED", "RUNNING"):
        return replace(step, state=TERMINATED)
    return replace(step, state=unfinished) if ended and step.end is None else step
