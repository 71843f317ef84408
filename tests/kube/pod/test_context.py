"""What a training pod tells: its metrics the course of training, the run's events only what the launcher cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core.config import parse_config
from steerlm_core.kube.pod import context as pod
from steerlm_core.observe.event_store import read_events
from steerlm_core.observe.metrics import Metrics
from steerlm_core.store import open_store
from tests.runs import run_at
from tests.tiny import tiny_settings

NUMBERS = {"loss": 0.5, "distance": 0.4, "ess": 3.0, "seconds": 2.0, "tokens": 100.0}


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    found = Metrics()
    monkeypatch.setattr(pod, "metric_listeners", lambda pipeline: [found])
    return found


@pytest.mark.parametrize("leads", [True, False])
def test_the_node_that_sees_the_steps_says_whether_training_moves(tmp_path: Path, metrics: Metrics, leads: bool):
    root = str(tmp_path)
    run = run_at(root, parse_config(tiny_settings(), "tiny"))

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"run": run.run_id, "stage": "train"})

    with pod.pod_context(run, 0, {}, leads) as context:
        running, moved = value("steerlm_stage_running"), value("steerlm_stage_last_progress_timestamp_seconds")
        assert (running, moved is not None) == ((1, True) if leads else (None, False))
        if leads:
            context.events.progress(3, 10, "steps")
            context.events.metric(step=3.0, **NUMBERS)
            context.events.warning("a step was slow")
            assert value("steerlm_stage_progress_ratio") == 0.3
            assert value("steerlm_stage_last_progress_timestamp_seconds") > moved
    assert value("steerlm_stage_running") == (0 if leads else None)
    kinds = [event["kind"] for event in read_events(open_store(root))]
    assert kinds == (["metric", "warning"] if leads else [])
