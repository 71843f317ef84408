"""Metrics: what events come to, a live scrape that promtool accepts, a real Prometheus and Pushgateway."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from steerlm_core.errors import ConfigError, NonFiniteError
from steerlm_core.kube.job.failure_classes import TrainJobError
from steerlm_core.kube.job.files import Progress
from steerlm_core.kube.job.state import JobState
from steerlm_core.kube.launch.announce import Announcer
from steerlm_core.observe.events import Event, EventLog
from steerlm_core.observe.exposition import GATEWAY, PORT, Pusher, metric_listeners, serve
from steerlm_core.observe.metrics import Metrics
from tests.in_process import STEERLM
from tests.services.processes import free_ports
from tests.services.prometheus import monitoring, tool
from tests.tiny import tiny_settings
from tests.waiting import until

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


def test_a_port_that_is_taken_or_none_is_explained(monkeypatch):
    (port,) = free_ports("127.0.0.1", 1)
    with HTTPServer(("0.0.0.0", port), BaseHTTPRequestHandler):
        monkeypatch.setenv(PORT, str(port))
        with pytest.raises(ConfigError, match=f"port {port} cannot be served"):
            metric_listeners("demo")
    with pytest.raises(ConfigError, match="'many' is not a port number"):
        serve("many")
    monkeypatch.delenv(PORT)
    monkeypatch.delenv(GATEWAY, raising=False)
    assert metric_listeners("demo") == []


def _pushed(port: int, *steps: str) -> list[Event]:
    """What is heard of steps whose end is pushed to a gateway on that port; one warning, of the gateway."""
    heard: list[Event] = []
    log = EventLog("run-1", None, [Pusher(f"http://127.0.0.1:{port}", "demo"), heard.append])
    for step in steps:
        with log.step(step, 0):
            pass
    (warning,) = (event.fields["message"] for event in heard if event.kind == "warning")
    assert "Pusher has stopped listening" in warning
    return heard


def test_a_gateway_that_is_gone_is_reported_once_and_the_work_goes_on():
    (port,) = free_ports("127.0.0.1", 1)
    assert _pushed(port, "label", "weigh")[-1].kind == "finished"


def test_a_gateway_that_hangs_holds_up_a_step_for_seconds_only(monkeypatch):
    monkeypatch.setattr("steerlm_core.observe.exposition._PUSH_SECONDS", 0.3)
    release = threading.Event()

    class Hangs(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            release.wait(60)

    (port,) = free_ports("127.0.0.1", 1)
    with HTTPServer(("127.0.0.1", port), Hangs) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        started = time.monotonic()
        _pushed(port, "label")
        took = time.monotonic() - started
        release.set()
    assert took < 10


@pytest.mark.timeout(300)
def test_prometheus_scrapes_a_run_while_it_trains(tmp_path):
    with monitoring(tmp_path) as found:
        run = _start(tmp_path, {PORT: str(found.port)}, train={"epochs": 100_000})
        try:
            scrape = until("training", lambda: _scrape(found.port, run, b"steerlm_train_loss{"), 200)
            until("a sample", lambda: found.query('steerlm_train_loss{job="steerlm",pipeline=""}'), 60)
        finally:
            run.send_signal(signal.SIGINT)
            code = run.wait(60)
    assert code == 130, (tmp_path / "run.log").read_text()
    checked = subprocess.run([tool("promtool"), "check", "metrics"], input=scrape, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.timeout(300)
def test_prometheus_finds_what_the_steps_of_a_run_pushed(tmp_path):
    with monitoring(tmp_path) as found:
        code = _start(tmp_path, {GATEWAY: found.gateway}).wait(200)
        assert code == 0, (tmp_path / "run.log").read_text()
        last = 'steerlm_stage_last_success_timestamp_seconds{stage="confirm",pipeline="tiny"}'
        until("a sample", lambda: found.query(last), 60)
        pushed = '{job="steerlm",pipeline="tiny",stage="%s"}'
        for at in ("before", "after"):
            assert found.value(f'steerlm_distance{{pipeline="tiny",stage="evaluate",at="{at}"}}') > 0
        assert found.value("steerlm_train_tokens_total" + pushed % "train") > 0
        assert found.value("steerlm_effective_sample_size" + pushed % "weigh") >= 1
        assert found.value("steerlm_stage_running" + pushed % "train") == 0
        assert found.query("push_time_seconds" + pushed % "train")
        groups = {(each["metric"]["pipeline"], each["metric"]["stage"]) for each in found.query("push_time_seconds")}
        assert {"prepare", "generate", "label", "score_prior", "weigh", "train", "evaluate", "decide", "confirm"} == {
            stage for _, stage in groups
        }


def _start(folder: Path, environment: dict[str, str], **changes: Any) -> subprocess.Popen[bytes]:
    """Start a run of a few seconds, for ever if its training is told to be."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_settings(max_iterations=8, **changes)))
    command = [*STEERLM, "run", str(folder / "tiny.yaml"), "--root", str(folder / "run")]
    with (folder / "run.log").open("wb") as log:
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
        )


def _scrape(port: int, run: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    """What the run says on its port, once it says what is wanted."""
    assert run.poll() is None, "the run has ended before it was scraped"
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read()
    except URLError:
        return b""
    return text if wanted in text else b""
