"""What a run in Kubeflow is doing, step by step, and why one failed.

Kubeflow reports the nodes of the run's workflow: a step is the node that bears its task's name, beside the pods
`NAME-driver` and `executor`. It reports neither a node's parent nor why it failed. So the iteration is found by time,
since iterations follow one another, and the reason in the log of the step's pod.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kfp_server_api import ApiException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter
from urllib3.exceptions import HTTPError

from steerlm_core.errors import KubeflowError
from steerlm_core.kubeflow.client import INSTALLED_IN, Kubeflow
from steerlm_core.kubeflow.refusals import said_plainly
from steerlm_core.kubeflow.step_output import own_error

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
_TRANSIENT = (429, 500, 502, 503, 504)
_ATTEMPT = re.compile(r"\(\d.*\)$")  # NAME(0): an attempt, or a turn of a loop
_FIRST_YEAR = 2000  # Kubeflow writes a time that is not yet as one in the year 1 or 1970
_EXECUTOR, _EXECUTOR_TEMPLATE = "executor", "system-container-impl"
_LAUNCHER_LINE = re.compile(r"[IWEF]\d{4} \d\d:")  # a log line of Kubeflow's own, around those of the step
_LAST_LINES = 5


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        part: The iteration, or "".
        name: Name of the step.
        state: RUNNING, SUCCEEDED, FAILED, …
        start: When it began.
        seconds: How long it took; None while it runs.
        nodes: Ids of the nodes below it in the workflow.
    """

    part: str
    name: str
    state: str
    start: datetime
    seconds: float | None
    nodes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Iteration and name."""
        return f"{self.part} {self.name}".strip()


@dataclass(frozen=True)
class Names:
    """The tasks of a pipeline by what they are.

    Attributes:
        steps: Titles of the tasks that run a container.
        parts: Titles of the nested pipelines: the iterations.
    """

    steps: dict[str, str]
    parts: dict[str, str]


def get_run(kubeflow: Kubeflow, run_id: str) -> Any:
    """Return a run.

    Raises:
        KubeflowError: There is none of this id.
    """
    try:
        return kubeflow.client.get_run(run_id)
    except ApiException as error:
        if error.status == 404:
            raise KubeflowError(
                f"{run_id}: no such run on {kubeflow.host}; `steerlm kubeflow status` lists the runs."
            ) from error
        raise


def follow(kubeflow: Kubeflow, run_id: str, say: Callable[[Step], None]) -> Any:
    """Wait until a run has ended, and tell of every step that ends; a break in the connection is waited out.

    Returns:
        The run.

    Raises:
        KubeflowError: There is no such run, or Kubeflow has not answered for some minutes.
    """
    names = names_of(kubeflow, get_run(kubeflow, run_id))
    try:
        with said_plainly(kubeflow.host, kubeflow.authenticated):
            return _follow(kubeflow, run_id, names, say)
    except KubeflowError as error:
        raise KubeflowError(f"{error} The run goes on; follow it again with: {following(run_id)}") from error


def following(run_id: str) -> str:
    """Return the command that follows a run."""
    return f"steerlm kubeflow status {run_id} --wait"


def _follow(kubeflow: Kubeflow, run_id: str, names: Names, say: Callable[[Step], None]) -> Any:
    said: set[Step] = set()
    retrying = Retrying(
        retry=retry_if_exception(_passes),
        stop=stop_after_delay(PATIENCE_SECONDS),
        wait=wait_exponential_jitter(multiplier=POLL_SECONDS, max=30, jitter=POLL_SECONDS),
        reraise=True,
    )
    while True:
        run = retrying(get_run, kubeflow, run_id)
        for step in steps_of(run, names):
            if step.state in ENDED and step not in said:
                said.add(step)
                say(step)
        if run.state in ENDED:
            return run
        time.sleep(POLL_SECONDS)


def _passes(error: BaseException) -> bool:
    return isinstance(error, HTTPError) or (isinstance(error, ApiException) and error.status in _TRANSIENT)


def names_of(kubeflow: Kubeflow, run: Any) -> Names:
    """Return the names of a run's pipeline; a scheduled run refers to an uploaded version, which has them."""
    spec = run.pipeline_spec or _spec_of(kubeflow, run.pipeline_version_reference)
    spec = (spec or {}).get("pipeline_spec") or spec or {}
    names = Names({}, {})
    if spec:
        _collect(spec["root"]["dag"], spec["components"], names)
    return names


def _spec_of(kubeflow: Kubeflow, version: Any) -> Any:
    """Return the pipeline of a version; None of one that has been deleted since."""
    if not version or not version.pipeline_version_id:
        return None
    try:
        return kubeflow.client.get_pipeline_version(version.pipeline_id, version.pipeline_version_id).pipeline_spec
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _collect(dag: dict[str, Any], components: dict[str, Any], names: Names) -> None:
    for key, task in dag["tasks"].items():
        component, title = components[task["componentRef"]["name"]], task["taskInfo"]["name"]
        if "dag" not in component:
            names.steps[key] = title
            continue
        if "parameterIterator" not in task and "condition" not in task.get("triggerPolicy", {}):
            names.parts[key] = title
        _collect(component["dag"], components, names)


def steps_of(run: Any, names: Names) -> list[Step]:
    """Return the steps of a run that have begun, in the order in which they did."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    begun = sorted((task for task in tasks if _time(task.start_time)), key=lambda task: task.start_time)
    parts = [task for task in begun if _key(task) in names.parts]
    return [
        Step(_part(task, parts, names), names.steps[_key(task)], task.state, task.start_time, _seconds(task),
             tuple(child.pod_name for child in task.child_tasks or [] if child.pod_name))
        for task in begun
        if _key(task) in names.steps and task.state != "SKIPPED"
    ]  # fmt: skip


def _part(task: Any, parts: list[Any], names: Names) -> str:
    """Return the iteration that was at work when a step began."""
    for part in reversed(parts):
        if part.start_time <= task.start_time and task.start_time <= (_time(part.end_time) or task.start_time):
            return names.parts[_key(part)]
    return ""


def _key(task: Any) -> str:
    return _ATTEMPT.sub("", task.display_name or "")


def _time(when: datetime | None) -> datetime | None:
    return when if when and when.year >= _FIRST_YEAR else None


def _seconds(task: Any) -> float | None:
    end = _time(task.end_time)
    return (end - task.start_time).total_seconds() if end and task.state in ENDED else None


def why_it_failed(kubeflow: Kubeflow, run: Any) -> str:
    """Return the failed step of a run and its own words; where they cannot be read, where they stand."""
    failed = [step for step in steps_of(run, names_of(kubeflow, run)) if step.state == "FAILED"]
    if not failed:
        said = run.error.message if run.error and run.error.message else "Kubeflow names no step and no reason"
        return f"{said}; see {kubeflow.link(f'runs/details/{run.run_id}')}"
    step = failed[-1]
    for pod in _pods(run, step):
        if log := _log(kubeflow, run.run_id, pod):
            return f"{step.title}: {last_words(log)}"
    return f"{step.title}: its log cannot be read from here; see {kubeflow.link(f'runs/details/{run.run_id}')}"


def last_words(log: str) -> str:
    """Return what a step ended with: the message of an error of ours, else the end of its output."""
    lines = [line for line in log.splitlines() if line.strip() and not _LAUNCHER_LINE.match(line)]
    return str(own_error(lines) or "\n".join(lines[-_LAST_LINES:]))


def _pods(run: Any, step: Step) -> Iterator[str]:
    """Yield the pods that may have run a step, made from the ids of the workflow's nodes below it."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    attempts = [
        child.pod_name for task in tasks if _key(task) == _EXECUTOR and task.state == "FAILED"
        for child in task.child_tasks or [] if child.pod_name
    ]  # fmt: skip
    for node in (*step.nodes, *attempts):
        workflow, _, number = node.rpartition("-")
        yield f"{workflow}-{_EXECUTOR_TEMPLATE}-{number}"


def _log(kubeflow: Kubeflow, run_id: str, pod: str) -> str | None:
    """Return the log of a pod, from the API or from the interface's server, whichever the host is."""
    namespace = kubeflow.namespace or INSTALLED_IN
    for path, query in (
        (f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", {}),
        ("/k8s/pod/logs", {"podname": pod, "podnamespace": namespace, "runid": run_id}),
    ):
        try:
            return str(kubeflow.get(path, **query))
        except (ApiException, HTTPError, KubeflowError):
            continue
    return None
