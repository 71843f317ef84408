"""Why a run failed: in the words of the step that did, or of Kubeflow's driver before it.

Kubeflow names neither the task nor the reason. What a step failed with stands in the run root, and in the log of its
pod; what a driver failed with only in the log of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError

from steerlm_core.errors import KubeflowError
from steerlm_core.kubeflow.client import INSTALLED_IN, Kubeflow
from steerlm_core.kubeflow.runs import retried_at
from steerlm_core.kubeflow.sight import Sight
from steerlm_core.kubeflow.step_output import own_error
from steerlm_core.kubeflow.tasks import Task

_EXECUTOR, _STEP_PODS = "executor", "system-container-impl"
_STEP_DRIVERS, _GROUP_DRIVERS = "system-container-driver", "system-dag-driver"
# Lines around those of the step: of Kubeflow's launcher, of Argo's, and the last of a container that failed.
_NOT_OURS = re.compile(r"[IWEF]\d{4} \d\d:|time=\S+ level=\w+ .*\bargo=true|Error: exit status \d+$")
_FATAL = re.compile(r"^F\d{4} \d\d:\S+ +\d+ \S+\] (.*)", re.MULTILINE)
_CALL = re.compile(r"KFP driver: driver\.\w+\(.*?\) failed: ")  # repeats what is known: the run, the task
_LAST_LINES = 5


def why_it_failed(kubeflow: Kubeflow, sight: Sight) -> str:
    """Return the failed step of a run and its own words; where they cannot be read, where they stand."""
    elsewhere = f"its log cannot be read from here; see {kubeflow.link(f'runs/details/{sight.run.run_id}')}"
    task = _failed(sight)
    place = sight.pipeline.place(task.names) if task else None
    if task and place and place.is_driver:
        said = _driver_words(kubeflow, sight.run.run_id, task, _STEP_DRIVERS if place.runs else _GROUP_DRIVERS)
        return f"{place.title or 'the start'}, in Kubeflow's driver, before it began: {said or elsewhere}"
    failed = [step for step in sight.steps if step.state == "FAILED"]
    # A step that was killed, or failed before it could say anything, has failed in Kubeflow's list alone.
    first = min(failed, key=lambda step: step.end or step.start, default=place)
    if first is None:
        return _without_a_step(kubeflow, sight)
    said = sight.root.error_of(first.part, first.name) or (_step_words(kubeflow, sight, task) if task else "")
    return f"{first.title}: {said or elsewhere}"


def _failed(sight: Sight) -> Task | None:
    """Return the step, or the driver, that failed first; not what was retried since."""
    again = retried_at(sight.run)
    failed = [task for task in sight.tasks if task.state == "FAILED" and task.end and not (again and task.end <= again)]
    places = [(task, sight.pipeline.place(task.names)) for task in failed]
    leaves = [task for task, place in places if place.is_driver or (place.runs and place.is_task)]
    return min(leaves, key=lambda task: task.end or task.start, default=None)


def _without_a_step(kubeflow: Kubeflow, sight: Sight) -> str:
    error = sight.run.error.message if sight.run.error and sight.run.error.message else ""
    said = error or "a step that Kubeflow does not name, for a reason that it does not give"
    return f"{said}; see {kubeflow.link(f'runs/details/{sight.run.run_id}')}"


def _driver_words(kubeflow: Kubeflow, run_id: str, task: Task, template: str) -> str:
    """Return the line that a driver ended with."""
    found = _FATAL.findall(_log(kubeflow, run_id, task.pods(template)))
    return _CALL.sub("", found[-1]) if found else ""


def _step_words(kubeflow: Kubeflow, sight: Sight, task: Task) -> str:
    """Return what a step's pod ended with."""
    executor = next((each for each in sight.tasks if each.names == (*task.names, _EXECUTOR)), None)
    return last_words(_log(kubeflow, sight.run.run_id, executor.pods(_STEP_PODS) if executor else ()))


def last_words(log: str) -> str:
    """Return what a step ended with: the message of an error of ours, else the end of its output."""
    lines = [line for line in log.splitlines() if line.strip() and not _NOT_OURS.match(line)]
    return str(own_error(lines) or "\n".join(lines[-_LAST_LINES:]))


def _log(kubeflow: Kubeflow, run_id: str, pods: Iterable[str]) -> str:
    """Return the log of the first of these pods that has one, from the API or from the interface's server."""
    namespace = kubeflow.namespace or INSTALLED_IN
    for pod in pods:
        for path, query in (
            (f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", {}),
            ("/k8s/pod/logs", {"podname": pod, "podnamespace": namespace, "runid": run_id}),
        ):
            try:
                if log := str(kubeflow.get(path, **query)):
                    return log
            except (ApiException, HTTPError, KubeflowError):
                continue
    return ""
