"""The same configuration and seed: the same evaluations and the same decision, in one process and under kfp.local."""

from __future__ import annotations

import pytest
from kfp import components

from pipelines.steerlm_v2.pipeline import compile_to
from steerlm_core.config import parse_config
from steerlm_core.kubeflow import local_runner
from steerlm_core.store import open_store
from tests.runs import loop_at
from tests.tiny import tiny_settings
from tests.toy.runs import results

# No improvement is enough, and only the second in a row stops the run: both iterations run.
PATIENT = {"bootstrap_samples": 200, "min_ess": 1.0, "min_relative_improvement": 0.95, "patience": 2}


@pytest.mark.long
@pytest.mark.timeout(1800)  # a process a step
def test_both_runners_find_and_decide_the_same(tmp_path, monkeypatch):
    compile_to(tmp_path / "pipeline.yaml", iterations=2)
    short = components.load_component_from_file(str(tmp_path / "pipeline.yaml"))
    monkeypatch.setattr(local_runner, "load_pipeline", lambda: short)  # six gates, and processes, fewer
    config = parse_config(tiny_settings(convergence=PATIENT), "tiny")
    loop_at(tmp_path / "here", config)
    local_runner.run_under_kfp_local(open_store(str(tmp_path / "kfp")), config)
    here, kfp = results(str(tmp_path / "here")), results(str(tmp_path / "kfp"))
    assert {"iterations/000/commit.json", "iterations/001/commit.json"} <= here.keys()
    assert here == kfp
