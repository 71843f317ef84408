"""One component and one executor for each step in a compiled pipeline, however often the step is used.

A nested pipeline that is used eight times brings eight copies of all that it contains. Copies of a step are merged,
as KFP's compiler does within one pipeline; the graphs, which differ in their place, stay as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def share_components(path: Path) -> None:
    """Rewrite a compiled pipeline in place."""
    text = path.read_text()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    documents = list(yaml.safe_load_all(text))
    _share(documents[0])
    path.write_text(header + yaml.safe_dump_all(documents, sort_keys=True))


def _share(pipeline: dict[str, Any]) -> None:
    components, executors = pipeline["components"], pipeline["deploymentSpec"]["executors"]
    labels = _merge(executors)
    for component in components.values():
        if "executorLabel" in component:
            component["executorLabel"] = labels[component["executorLabel"]]
    names = _merge({name: each for name, each in components.items() if "executorLabel" in each})
    for name in set(names) - set(names.values()):
        del components[name]
    for graph in [pipeline["root"], *components.values()]:
        for task in graph.get("dag", {}).get("tasks", {}).values():
            used = task["componentRef"]["name"]
            task["componentRef"]["name"] = names.get(used, used)


def _merge(entries: dict[str, Any]) -> dict[str, str]:
    """Drop all but the first of equal entries, in place; return which name stands for each."""
    first: dict[str, str] = {}
    names = {}
    for name in sorted(entries, key=lambda name: (len(name), name)):
        names[name] = first.setdefault(json.dumps(entries[name], sort_keys=True), name)
    for name in set(names) - set(names.values()):
        del entries[name]
    return names
