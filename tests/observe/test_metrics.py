"""Metrics: what events come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steerlm_core.errors import NonFiniteError
from steerlm_core.kube.job.failure_classes import TrainJobError
from steerlm_core.kube.job.files import Progress
from steerlm_core.kube.job.state import JobState
from steerlm_core.kube.launch.announce import Announcer
from steerlm_core.observe.events import EventLog
from steerlm_core.observe.metrics import Metrics

NUMBERS = {"loss": 0.5, "distance": 0.4, "ess": 3.0, "seconds": 2.0, "tokens": 100.0, "grad_norm": 1.0}


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"run": "run-1", **labels})


def test_a_stage_is_seen_from_its_start_to_its_end():
    metrics = Metrics()
    log = EventLog("run-1", None, [metrics])
    with log.step("generate", 3) as says:
        assert _value(metrics, "steerlm_stage_running", stage="generate") == 1
        assert _value(metrics, "steerlm_iteration") == 3
        says.progress(30, 40, "groups")
        assert _value(metrics, "steerlm_stage_progress_ratio", stage="generate") == 0.75
        says.metric(drift_token=1.01, drift_far_share=0.002)
    assert _value(metrics, "steerlm_stage_running", stage="generate") == 0
    assert _value(metrics, "steerlm_sampler_drift_ratio") == 1.01
    assert _value(metrics, "steerlm_sampler_drifted_ratio") == 0.002
    succeeded = _value(metrics, "steerlm_stage_last_success_timestamp_seconds", stage="generate")
    moved = _value(metrics, "steerlm_stage_last_progress_timestamp_seconds", stage="generate")
    assert succeeded >= moved > 1.5e9
    assert _value(metrics, "steerlm_stage_last_duration_seconds", stage="generate") >= 0


@pytest.mark.parametrize(
    ("error", "reason"), [(NonFiniteError("loss is nan"), "non_finite"), (KeyboardInterrupt(), "interrupted"),
                          (MemoryError(), "out_of_memory"), (ValueError("x"), "other")]
)  # fmt: skip
def test_a_failure_has_a_reason(error, reason):
    metrics = Metrics()
    with pytest.raises(type(error)), EventLog("run-1", None, [metrics]).step("train", 0):
        raise error
    assert _value(metrics, "steerlm_stage_last_failure_timestamp_seconds", stage="train", reason=reason) > 1.5e9
    assert _value(metrics, "steerlm_stage_last_success_timestamp_seconds", stage="train") is None


def test_training_counts_its_steps_tokens_and_checkpoints():
    metrics = Metrics()
    with EventLog("run-1", None, [metrics]).step("train", 0) as says:
        says.metric(step=1.0, **NUMBERS)
        began = _value(metrics, "steerlm_last_checkpoint_timestamp_seconds")
        says.metric(step=2.0, **{**NUMBERS, "loss": 0.25, "seconds": -50.0}, checkpoint_seconds=0.7)
        assert _value(metrics, "steerlm_last_checkpoint_timestamp_seconds") >= began + 50
    assert _value(metrics, "steerlm_train_tokens_total") == 200
    assert _value(metrics, "steerlm_train_step_duration_seconds_count") == 2
    assert _value(metrics, "steerlm_checkpoint_duration_seconds_sum") == 0.7
    assert _value(metrics, "steerlm_train_loss") == 0.25
    assert _value(metrics, "steerlm_distance", at="training") == 0.4
    assert _value(metrics, "steerlm_last_checkpoint_timestamp_seconds") is None, "its age would go on growing"


def test_the_age_of_the_first_checkpoint_counts_from_the_first_step():
    metrics = Metrics()
    log = EventLog("run-1", None, [metrics])
    with log.step("train", 0) as says:
        assert _value(metrics, "steerlm_last_checkpoint_timestamp_seconds") is None
        for time in (100.0, 102.0):
            log.emit(replace(log.event("metric", "train", 0, None, NUMBERS), time=time))
        assert _value(metrics, "steerlm_last_checkpoint_timestamp_seconds") == 98
        says.progress(2, 2, "steps")


def test_what_a_launcher_sees_of_its_job_is_counted_as_far_as_it_goes():
    metrics, heard = Metrics(), []
    with EventLog("run-1", None, [metrics, heard.append]).step("train", 0) as says:
        announcer = Announcer(lambda words: None, says)
        for step, loss in ((3, 0.5), (7, 0.25)):
            announcer.job(
                "job", JobState({"status": {}}, progress=Progress(step=step, steps=10, loss=loss, time=1.0)), []
            )
        assert _value(metrics, "steerlm_train_loss") == 0.25
        assert _value(metrics, "steerlm_stage_progress_ratio", stage="train") in (0.3, 0.7)  # progress is throttled
        assert _value(metrics, "steerlm_last_checkpoint_timestamp_seconds") is None, "only pods know of checkpoints"
    assert next(event.fields for event in heard if event.kind == "metric") == {"step": 3.0, "loss": 0.5}
    assert not [event for event in heard if event.kind == "warning"]
    assert _value(metrics, "steerlm_stage_running", stage="train") == 0


@pytest.mark.parametrize("kind", ["non_finite", "out_of_memory", "quota"])
def test_the_end_of_a_job_is_the_reason_of_the_failure(kind):
    metrics = Metrics()
    with pytest.raises(TrainJobError), EventLog("run-1", None, [metrics]).step("train", 0):
        raise TrainJobError(kind, f"job train-0: {kind}: step 7: the loss is nan")
    assert _value(metrics, "steerlm_stage_last_failure_timestamp_seconds", stage="train", reason=kind) > 1.5e9


def test_what_was_not_said_is_absent():
    names = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    assert names == {"steerlm_build_info"}
