"""Starts a step in a process of its own, as Kubeflow's launcher does in a pod.

By KFP 2.17.0, backend/src/v2/component/launcher_v2.go: `{{$}}` in command and arguments becomes the executor's input;
afterwards the output parameters are read from the file that the executor has written. Its artifacts are folders here,
and nothing is uploaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pipelines.driver_rules import Call, Values, as_written

_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Launched:
    """What a step left.

    Attributes:
        parameters: Its output parameters.
        artifacts: Metadata of its artifacts.
        log: What it printed.
    """

    parameters: Values
    artifacts: dict[str, dict[str, Any]]
    log: str


def launch(call: Call, folder: Path) -> Launched:
    """Run a step.

    Args:
        call: The step, with its inputs.
        folder: Where its outputs go.
    """
    given = json.dumps(_executor_input(call, folder))
    command = [part.replace("{{$}}", given) for part in (*call.container["command"], *call.container["args"])]
    ended = subprocess.run(command, env=_environment(), cwd=_made(folder), text=True, capture_output=True, check=False)
    assert ended.returncode == 0, f"{call.place}\n{ended.stdout}\n{ended.stderr}"
    written = json.loads((folder / "executor_output.json").read_text())
    artifacts = {name: each["artifacts"][0]["metadata"] for name, each in written.get("artifacts", {}).items()}
    return Launched(written.get("parameterValues", {}), artifacts, ended.stdout + ended.stderr)


def _environment() -> dict[str, str]:
    """This process's, where `python3` is this one's, and finds the checkout."""
    python = Path(sys.executable).parent
    return os.environ | {"PATH": f"{python}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(_REPOSITORY)}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _executor_input(call: Call, folder: Path) -> dict[str, Any]:
    outputs = call.component.get("outputDefinitions", {})
    return {
        "inputs": {"parameterValues": as_written(call.inputs)},
        "outputs": {
            "parameters": {name: {"outputFile": str(folder / name)} for name in outputs.get("parameters", {})},
            "artifacts": {
                name: {"artifacts": [{"name": name, "type": each["artifactType"], "uri": str(folder / name)}]}
                for name, each in outputs.get("artifacts", {}).items()
            },
            "outputFile": str(folder / "executor_output.json"),
        },
    }
