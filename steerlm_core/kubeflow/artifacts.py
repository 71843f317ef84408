"""What an artifact of a step shows in Kubeflow's interface."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlm_core import layout


def shown(values: Mapping[str, object], root: str, iteration: int | None = None) -> dict[str, str | int | float]:
    """Return metadata for a Metrics artifact: a step's plain values, and which run and iteration they are of.

    The interface may show the artifact of another iteration where tasks share a name, hence the latter. Kubeflow
    stores metadata as JSON that knows neither NaN nor infinity: such values, lists and mappings stay in the run root.
    """
    where: dict[str, str | int | float] = {"run": root} if iteration is None else {"run": root, "iteration": iteration}
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    return {name: value for name, value in plain.items() if isinstance(value, str) or math.isfinite(value)} | where


def registered(artifact: Any, name: layout.StageOutput, root: str, iteration: int) -> None:
    """Describe an output of an iteration in an artifact, for the lineage that Kubeflow shows.

    The data stay in the run root: a small document names their place. (As far as known, an artifact whose own address
    lies outside of the pipeline root makes Kubeflow's launcher fail the step.)
    """
    place = f"{root}/{layout.stage_output(layout.iteration(iteration), name)}"
    artifact.metadata.update(shown({"address": place}, root, iteration))
    Path(artifact.path).write_text(json.dumps(artifact.metadata, indent=1))
