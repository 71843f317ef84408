"""How many iterations a compiled pipeline has room for, and how to change that.

The chain lies in one graph: a task for each iteration, whose component is a graph that contains others. All are
copies of the first, under names of their own; the steps themselves are shared.
"""

from __future__ import annotations

import copy
from typing import Any

from steerlm_core.errors import ConfigError

_ITERATION = "steerlm-v2-iteration"

Components = dict[str, Any]


def room(components: Components) -> int:
    """Return the number of iterations among the components of a compiled pipeline."""
    return sum(name.startswith(f"comp-{_ITERATION}") for name in components)


def resize(pipeline: dict[str, Any], iterations: int) -> None:
    """Give a compiled pipeline room for so many iterations, in place.

    Raises:
        ConfigError: That is not one at least.
    """
    if iterations < 1:
        raise ConfigError(f"max_iterations: {iterations} is too few; a pipeline has room for one at least.")
    components = pipeline["components"]
    tasks = _chain(components)
    old = [name for name in tasks if name.startswith(_ITERATION)]
    last = max(old, key=lambda name: float(_index(tasks[name])["constant"]))
    first, template = tasks[_ITERATION], _graphs(components, tasks[_ITERATION]["componentRef"]["name"])
    for name in old:
        for graph in _graphs(components, tasks.pop(name)["componentRef"]["name"]):
            del components[graph]
    followers = [task for task in tasks.values() if last in task.get("dependentTasks", [])]
    for index in range(iterations):
        components |= {_copy_name(name, index): _renamed(graph, template, index) for name, graph in template.items()}
        tasks[_copy_name(_ITERATION, index)] = _iteration(first, index)
    for task in followers:
        before = task["dependentTasks"]
        task["dependentTasks"] = [_copy_name(_ITERATION, iterations - 1) if name == last else name for name in before]
    begin = pipeline["root"]["dag"]["tasks"]["begin"]
    begin["inputs"]["parameters"]["room"]["runtimeValue"]["constant"] = float(iterations)


def _chain(components: Components) -> dict[str, Any]:
    """The tasks of the graph that contains the iterations."""
    graphs = (component["dag"]["tasks"] for component in components.values() if "dag" in component)
    return next(tasks for tasks in graphs if _ITERATION in tasks)


def _graphs(components: Components, name: str) -> Components:
    """A graph and the graphs inside it, by name."""
    found = {name: components[name]}
    for task in components[name]["dag"]["tasks"].values():
        inner = task["componentRef"]["name"]
        if "dag" in components[inner]:
            found |= _graphs(components, inner)
    return found


def _renamed(graph: dict[str, Any], template: Components, index: int) -> dict[str, Any]:
    new = copy.deepcopy(graph)
    for task in new["dag"]["tasks"].values():
        inner = task["componentRef"]["name"]
        if inner in template:
            task["componentRef"]["name"] = _copy_name(inner, index)
    return new


def _iteration(first: dict[str, Any], index: int) -> dict[str, Any]:
    """The task of an iteration: after the one before, with its own number and component."""
    task = copy.deepcopy(first)
    task["componentRef"]["name"] = _copy_name(first["componentRef"]["name"], index)
    task["taskInfo"]["name"] = f"iteration-{index}"
    _index(task)["constant"] = float(index)
    if index:
        task["dependentTasks"] = sorted([*first["dependentTasks"], _copy_name(_ITERATION, index - 1)])
    return task


def _index(task: dict[str, Any]) -> dict[str, Any]:
    return task["inputs"]["parameters"]["index"]["runtimeValue"]  # type: ignore[no-any-return]


def _copy_name(name: str, index: int) -> str:
    return f"{name}-{index}" if index else name
