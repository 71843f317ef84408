"""What a real Kubeflow Pipelines 2.17 has answered, and what by its own rules it would have answered at other times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent.parent / "kubeflow" / "recorded"


def recording(name: str) -> dict[str, Any]:
    """Return an answer as it was recorded."""
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return found


def recorded(name: str) -> dict[str, Any]:
    """Return a run as a real API has described it."""
    run = recording(name)
    if "pipeline_version_reference" not in run:
        run["pipeline_spec"] = {"pipeline_spec": recording("pipeline")}
    return run


def as_of(run: dict[str, Any], clock: str) -> dict[str, Any]:
    """Return what the API would have said of a recorded run at an earlier time of its day, while it was at work.

    A task that has begun by then and not ended is running; ids of nodes that have not begun stay where they are.
    """
    moment = f"{run['created_at'][:11]}{clock}Z"
    begun = [task for task in run["run_details"]["task_details"] if task["start_time"] <= moment]
    tasks = [
        task if task["end_time"] <= moment else {**task, "state": "RUNNING", "end_time": "0001-01-01T00:00:00Z"}
        for task in begun if task.get("state")
    ]  # fmt: skip
    history = [each for each in run["state_history"] if each["update_time"] <= moment]
    return {"state": "RUNNING", "state_history": history, "run_details": {"task_details": tasks}}


def ended(run: dict[str, Any], state: str, at: str) -> dict[str, Any]:
    """Return what the API says of a run at work that has ended since its list of tasks was frozen."""
    history = [*run["state_history"], {"state": state, "update_time": at}]
    return {"state": state, "finished_at": at, "state_history": history}
