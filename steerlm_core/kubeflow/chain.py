"""How many iterations a compiled pipeline has room for, and how to change that.

The chain lies in one graph: a task for each iteration, all of one component.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from steerlm_core.errors import ConfigError

_ITERATION = "steerlm-v2-iteration"

Tasks = dict[str, Any]


def room(components: Mapping[str, Any]) -> int:
    """Return the number of iterations among the components of a compiled pipeline."""
    return sum(name.startswith(_ITERATION) for name in _chain(components))


def number_of(name: str, task: Mapping[str, Any]) -> int | None:
    """Return the number of the iteration that a task is; None for any other task."""
    return int(_index(task)) if name.startswith(_ITERATION) else None


def resize(pipeline: dict[str, Any], wanted: int) -> None:
    """Give a compiled pipeline room for so many iterations, in place.

    Raises:
        ConfigError: That is not one at least.
    """
    if wanted < 1:
        raise ConfigError(f"max_iterations: {wanted} is too few; a pipeline has room for one at least.")
    tasks = _chain(pipeline["components"])
    old, first = _iterations(tasks), tasks[_ITERATION]
    followers = [task for task in tasks.values() if old[-1] in task.get("dependentTasks", [])]
    for name in old:
        del tasks[name]
    tasks |= {_name(index): _iteration(first, index) for index in range(wanted)}
    for task in followers:
        task["dependentTasks"] = [_name(wanted - 1) if name == old[-1] else name for name in task["dependentTasks"]]
    begin = pipeline["root"]["dag"]["tasks"]["begin"]
    begin["inputs"]["parameters"]["room"]["runtimeValue"]["constant"] = float(wanted)


def _chain(components: Mapping[str, Any]) -> Tasks:
    """The tasks of the graph that contains the iterations."""
    graphs: Iterator[Tasks] = (each["dag"]["tasks"] for each in components.values() if "dag" in each)
    return next(tasks for tasks in graphs if _ITERATION in tasks)


def _iterations(tasks: Tasks) -> list[str]:
    """The names of the iterations among the tasks of the chain, in their order."""
    return sorted((name for name in tasks if name.startswith(_ITERATION)), key=lambda name: _index(tasks[name]))


def _iteration(first: dict[str, Any], index: int) -> dict[str, Any]:
    """The task of an iteration: after the one before, with its own number."""
    task = copy.deepcopy(first)
    task["taskInfo"]["name"] = f"iteration-{index}"
    task["inputs"]["parameters"]["index"]["runtimeValue"]["constant"] = float(index)
    if index:
        task["dependentTasks"] = sorted([*first["dependentTasks"], _name(index - 1)])
    return task


def _index(task: Mapping[str, Any]) -> float:
    return float(task["inputs"]["parameters"]["index"]["runtimeValue"]["constant"])


def _name(index: int) -> str:
    return f"{_ITERATION}-{index}" if index else _ITERATION
