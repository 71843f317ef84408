"""A compiled pipeline, walked as Kubeflow's backend walks it: what every task is given, and what would be refused.

kfp.local does none of this. The rules are those of KFP 2.17.0: backend/src/v2/driver (resolve.go, dag.go, root_dag.go:
inputs, types, loops, conditions), backend/src/v2/compiler/argocompiler (argo.go, dag.go: the root's defaults, order)
and backend/src/v2/component/launcher_v2.go (a component's defaults). What this pipeline does not use has no rule here,
and is refused as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Value = Any  # JSON: null, bool, number, text, list or mapping
Values = dict[str, Value]

RUN_ID = "0c1f6b3e-run"
_PLACEHOLDERS = {"{{$.pipeline_job_uuid}}": RUN_ID}
_TYPES: dict[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
_CONDITION = re.compile(r"inputs\.parameter_values\['(.+)'\] (==|!=) (.+)")


class RefusedError(Exception):
    """Where the driver, or Argo, would end the run: the task, the input, and why."""


@dataclass(frozen=True)
class Call:
    """A step as the launcher starts it.

    Attributes:
        place: The tasks that lead to it, an iteration of a loop as `name[0]`.
        component: Its component in the compiled pipeline.
        container: Its container.
        inputs: Values of its parameters.
    """

    place: str
    component: Mapping[str, Any]
    container: Mapping[str, Any]
    inputs: Values

    @property
    def step(self) -> str:
        """Name of the step."""
        return str(self.component["executorLabel"]).removeprefix("exec-")


Execute = Callable[[Call], Values]
"""Runs a step; returns its output parameters."""


def walk(pipeline: Mapping[str, Any], arguments: Values, execute: Execute) -> None:
    """Run a pipeline to its end.

    Raises:
        RefusedError: The backend would not have.
    """
    root = pipeline["root"]
    _Walk(pipeline, execute).graph(root, _given_to_root(root, arguments), "")


def _given_to_root(root: Mapping[str, Any], arguments: Values) -> Values:
    """The arguments, and the defaults of those that are missing; null for an optional one without a default."""
    values = dict(arguments)
    for name, definition in _parameters(root).items():
        if name not in values and ("defaultValue" in definition or definition.get("isOptional")):
            values[name] = definition.get("defaultValue")
    return values


def _parameters(component: Mapping[str, Any], side: str = "inputDefinitions") -> dict[str, Any]:
    found: dict[str, Any] = component.get(side, {}).get("parameters", {})
    return found


class _Walk:
    """One run of a pipeline."""

    def __init__(self, pipeline: Mapping[str, Any], execute: Execute) -> None:
        self._components, self._execute = pipeline["components"], execute
        self._executors = pipeline["deploymentSpec"]["executors"]

    def graph(self, component: Mapping[str, Any], values: Values, place: str) -> None:
        """Do the tasks of a graph that was given values; one waits until those before it have succeeded."""
        tasks, outputs = component["dag"]["tasks"], dict[str, Values]()
        for name in _in_order(tasks, place):
            if all(before in outputs for before in _before(tasks[name])):  # else left out, like what it waits for
                done = self._task(tasks[name], f"{place}/{name}", values, outputs)
                if done is not None:
                    outputs[name] = done

    def _task(
        self, task: Mapping[str, Any], place: str, values: Values, outputs: Mapping[str, Values]
    ) -> Values | None:
        """Do a task of whatever kind; return its outputs, None where its condition does not hold."""
        component = self._components[task["componentRef"]["name"]]
        inputs = _resolved(task, component, place, values, outputs)
        _check_types(task, component, place, inputs, not_given=_iterator(task).get("itemInput"))
        if not _holds(task, place, inputs):
            return None
        if "executorLabel" in component:
            return self._step(component, place, inputs)
        if not _iterator(task):
            self.graph(component, inputs, place)
            return {}
        for number, given in enumerate(_iterations(task, place, inputs)):
            inside = f"{place}[{number}]"
            _check_types(task, component, inside, given, not_given=_iterator(task)["items"]["inputParameter"])
            self.graph(component, given, inside)
        return {}

    def _step(self, component: Mapping[str, Any], place: str, inputs: Values) -> Values:
        defaults = {name: each["defaultValue"] for name, each in _parameters(component).items()
                    if "defaultValue" in each}  # fmt: skip
        container = self._executors[component["executorLabel"]]["container"]
        outputs = self._execute(Call(place, component, container, defaults | inputs))
        declared = _parameters(component, "outputDefinitions")
        if outputs.keys() != declared.keys():
            raise RefusedError(f"{place}: outputs {sorted(declared)} are declared, and {sorted(outputs)} came")
        return json.loads(json.dumps(outputs))


def _in_order(tasks: Mapping[str, Any], place: str) -> Iterator[str]:
    """The names of a graph's tasks, each after those that it depends on."""
    done: set[str] = set()
    for name, task in tasks.items():
        if unknown := _before(task) - tasks.keys():
            raise RefusedError(f"{place}/{name}: depends on {sorted(unknown)}, which do not stand in the same graph")
    while len(done) < len(tasks):
        ready = [name for name in tasks if name not in done and _before(tasks[name]) <= done]
        if not ready:
            raise RefusedError(f"{place}: {sorted(tasks.keys() - done)} wait for each other")
        yield from ready
        done.update(ready)


def _before(task: Mapping[str, Any]) -> set[str]:
    """The tasks that must have succeeded: those named, and those whose output is taken."""
    inputs = task.get("inputs", {}).get("parameters", {}).values()
    producers = {each["taskOutputParameter"]["producerTask"] for each in inputs if "taskOutputParameter" in each}
    return producers | set(task.get("dependentTasks", []))


def _iterator(task: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = task.get("parameterIterator", {})
    return found


def _resolved(
    task: Mapping[str, Any], component: Mapping[str, Any], place: str, values: Values, outputs: Mapping[str, Values]
) -> Values:
    """The values of a task's inputs."""
    declared, given = _parameters(component), task.get("inputs", {}).get("parameters", {})
    resolved: Values = {}
    if "dag" in component:  # a nested graph gets its defaults here; a component from its launcher
        resolved = {name: each.get("defaultValue") for name, each in declared.items()
                    if name not in given and each.get("isOptional")}  # fmt: skip
    for name, spec in given.items():
        value = _value(spec, f"{place}: input '{name}'", values, outputs)
        if value is not None:
            resolved[name] = value
        elif not declared.get(name, {}).get("isOptional"):
            raise RefusedError(f"{place}: input '{name}': null, and it is not optional")
    return resolved


def _value(spec: Mapping[str, Any], where: str, values: Values, outputs: Mapping[str, Values]) -> Value:
    if "componentInputParameter" in spec:
        if (name := spec["componentInputParameter"]) not in values:
            raise RefusedError(f"{where}: parent DAG does not have input parameter {name}")
        return values[name]
    if "taskOutputParameter" in spec:
        output = spec["taskOutputParameter"]
        if output["outputParameterKey"] not in outputs[output["producerTask"]]:
            raise RefusedError(f"{where}: {output['producerTask']} has no output '{output['outputParameterKey']}'")
        return outputs[output["producerTask"]][output["outputParameterKey"]]
    constant = spec.get("runtimeValue", {}).get("constant")
    if constant is None:
        raise RefusedError(f"{where}: no rule here for {json.dumps(spec)}")
    if not isinstance(constant, str) or "{{$" not in constant:
        return constant
    if constant not in _PLACEHOLDERS:
        raise RefusedError(f"{where}: '{constant}' is no placeholder that is replaced")
    return _PLACEHOLDERS[constant]


def _check_types(
    task: Mapping[str, Any], component: Mapping[str, Any], place: str, inputs: Values, not_given: str | None
) -> None:
    """Turn whatever is declared as text into text, in place; everything else must be what it is declared."""
    for name, definition in _parameters(component).items():
        if name == not_given:  # a loop has no item yet, an iteration no longer the list
            continue
        if name not in inputs:
            if definition.get("isOptional"):
                continue
            raise RefusedError(f"{place}: input '{name}': neither value nor default value, and it is not optional")
        value, kind = inputs[name], definition["parameterType"]
        if value is None and definition.get("isOptional"):
            continue
        if kind == "STRING":
            inputs[name] = _text(value)
        elif not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise RefusedError(f"{place}: input '{name}': type mismatch: expect {kind}, got {json.dumps(value)}")


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(as_written(value), separators=(",", ":"))


def as_written(value: Value) -> Value:
    """Return a value as Kubeflow writes its JSON: numbers are doubles, and whole ones have no point."""
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_written(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _holds(task: Mapping[str, Any], place: str, inputs: Values) -> bool:
    """Whether a task's condition holds; it compares values of one type, as others are never equal."""
    text = task.get("triggerPolicy", {}).get("condition")
    if text is None:
        return True
    found = _CONDITION.fullmatch(text)
    if not found:
        raise RefusedError(f"{place}: no rule here for the condition {text}")
    if found[1] not in inputs:
        raise RefusedError(f"{place}: the condition asks for '{found[1]}', which is not given")
    value, other = inputs[found[1]], json.loads(found[3].replace("'", '"'))
    if isinstance(value, str) != isinstance(other, str):
        raise RefusedError(f"{place}: the condition compares '{found[1]}', {json.dumps(value)}, with {found[3]}")
    return (value == other) is (found[2] == "==")


def _iterations(task: Mapping[str, Any], place: str, inputs: Values) -> Iterator[Values]:
    """The values that each iteration of a loop is given: an item in the list's place."""
    iterator = _iterator(task)
    listed = iterator["items"].get("inputParameter")
    if listed is None:
        raise RefusedError(f"{place}: no rule here for the items {json.dumps(iterator['items'])}")
    items = json.loads(inputs[listed]) if isinstance(inputs[listed], str) else inputs[listed]
    if not isinstance(items, list):
        raise RefusedError(f"{place}: input '{listed}': {json.dumps(items)} cannot be iterated")
    for item in items:
        yield {name: value for name, value in inputs.items() if name != listed} | {iterator["itemInput"]: item}
