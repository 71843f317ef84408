"""A compiled pipeline as small as it can be: Argo ends a run whose Workflow has grown over its limit.

    copies of a component ─► one ─► without its source, which the image holds ─► without words that nobody is shown

A nested pipeline that is used eight times brings eight copies of all that it contains, graphs and steps; they differ
in nothing, as what belongs to one iteration is an input. A step's command names the component in the image. Of all
descriptions Kubeflow shows those of the pipeline's own parameters, in its form.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

# kfp.local runs commands only that name KFP's executor.
_COMMAND = ["python3", "-m", "steerlm_core.kubeflow.execute", "kfp.dsl.executor_main"]


def make_compact(path: Path) -> None:
    """Rewrite a compiled pipeline in place."""
    text = path.read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    documents = list(yaml.safe_load_all(text))
    for component in documents[0]["components"].values():
        _remove_descriptions(component)
    _share(documents[0])
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        executor["container"]["command"] = [*_COMMAND]
    path.write_text(header + yaml.safe_dump_all(documents, sort_keys=True))


def _remove_descriptions(component: dict[str, Any]) -> None:
    for side in ("inputDefinitions", "outputDefinitions"):
        for kind in component.get(side, {}).values():
            for definition in kind.values():
                definition.pop("description", None)


def _share(pipeline: dict[str, Any]) -> None:
    """Merge equal executors, then equal components: steps first, then whatever became equal by that."""
    components = pipeline["components"]
    labels = _merge(pipeline["deploymentSpec"]["executors"])
    for component in components.values():
        if "executorLabel" in component:
            component["executorLabel"] = labels[component["executorLabel"]]
    left = 0
    while left != len(components):
        left, names = len(components), _merge(components)
        for graph in [pipeline["root"], *components.values()]:
            for task in graph.get("dag", {}).get("tasks", {}).values():
                task["componentRef"]["name"] = names[task["componentRef"]["name"]]


def _merge(entries: dict[str, Any]) -> dict[str, str]:
    """Drop all but the first of equal entries, in place; return which name stands for each."""
    first: dict[str, str] = {}
    names = {}
    for name in sorted(entries, key=lambda name: (len(name), name)):
        names[name] = first.setdefault(json.dumps(entries[name], sort_keys=True), name)
    for name in set(names) - set(names.values()):
        del entries[name]
    return names
