"""The examples: what they promise is what they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import local
from kfp.compiler import Compiler

from examples.own_pipeline import weights
from steerlm_core.kubeflow.local_runner import plain
from steerlm_core.report.run_view import RunView
from steerlm_core.run import open_run


@pytest.mark.long
def test_a_pipeline_of_ones_own_components_weighs_one_iteration(tmp_path, monkeypatch, capfd, toy):
    monkeypatch.chdir(tmp_path)
    Compiler().compile(weights, str(tmp_path / "own.yaml"))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "outputs"))
    weights(root=str(tmp_path / "run"), config=plain(toy))
    (iteration,) = RunView(open_run(str(tmp_path / "run"))).iterations
    assert iteration.steps_done == ["generate", "label", "score_prior", "weigh"]
    assert Path(tmp_path / "run" / "run.json").exists()
