"""The examples: what they promise is what they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import local
from kfp.compiler import Compiler

from examples.own_pipeline import weights
from steerlm_core.kubeflow.local_runner import plain
from steerlm_core.report.run_view import RunView
from steerlm_core.run import open_run

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_a_pipeline_of_ones_own_components_weighs_one_iteration(tmp_path, monkeypatch, capfd, toy):
    monkeypatch.chdir(tmp_path)
    Compiler().compile(weights, str(tmp_path / "own.yaml"))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "outputs"))
    weights(root=str(tmp_path / "run"), config=plain(toy))
    (iteration,) = RunView(open_run(str(tmp_path / "run"))).iterations
    assert iteration.steps_done == ["generate", "label", "score_prior", "weigh"]
    assert Path(tmp_path / "run" / "run.json").exists()


def test_a_loop_of_ones_own_gets_nearer_and_ends_by_the_librarys_rule():
    command = [sys.executable, "examples/own_loop.py"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *iterations, reason = done.stdout.splitlines()
    after = [float(line.split()[-1]) for line in iterations]
    assert after[-1] < after[0] / 3
    assert reason.startswith(f"Iteration {len(iterations) - 1} has a distance of {after[-1]:.3f} [")
    assert reason.endswith("surely under the tolerance of 0.1: converged.")
