"""The same configuration and seed: the same evaluations and the same decision, in one process and under kfp.local."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import components

from pipelines.steerlm_v2.pipeline import compile_to
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.kubeflow import local_runner
from steerlm_core.store import open_store
from tests.runs import loop_at
from tests.tiny import tiny_model
from tests.toy.runs import results

TINY = {
    "seed": 1,
    "max_iterations": 2,
    "attributes": [{"name": "verbosity"}, {"name": "mood"}],
    "raters": {"verbosity": "word_count", "mood": "sentiment"},
    "annotated": {"attribute_texts": 64, "bootstrap_texts": 64},
    "attribute_fit": {"epochs": 1},
    "bootstrap_fit": {"epochs": 2},
    "prompts": {"train": 8, "held_out": 4},
    "generate": {"candidates": 4},
    "train": {"batch_groups": 4, "epochs": 1, "learning_rate": 2e-5},
    # No improvement is enough, and only the second in a row stops the run: both iterations run.
    "convergence": {"bootstrap_samples": 200, "min_ess": 1.0, "min_relative_improvement": 0.95, "patience": 2},
    "runtime": {"threads": 1},
}


def run_in_process(root: Path, config: RunConfig) -> None:
    loop_at(root, config)


@pytest.mark.long
@pytest.mark.timeout(1800)  # a process a step
def test_both_runners_find_and_decide_the_same(tmp_path, monkeypatch):
    compile_to(tmp_path / "pipeline.yaml", iterations=2)
    short = components.load_component_from_file(str(tmp_path / "pipeline.yaml"))
    monkeypatch.setattr(local_runner, "load_pipeline", lambda: short)  # six gates, and processes, fewer
    config = parse_config({**TINY, "models": {"prior": str(tiny_model())}}, "tiny")
    run_in_process(tmp_path / "here", config)
    local_runner.run_under_kfp_local(open_store(str(tmp_path / "kfp")), config)
    here, kfp = results(str(tmp_path / "here")), results(str(tmp_path / "kfp"))
    assert {"iterations/000/commit.json", "iterations/001/commit.json"} <= here.keys()
    assert here == kfp
