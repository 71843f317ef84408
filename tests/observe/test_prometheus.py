"""Runs that a real Prometheus scrapes, or finds in a Pushgateway; promtool accepts what they say."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from steerlm_core.observe.exposition import GATEWAY, PORT
from tests.in_process import STEERLM
from tests.services.prometheus import monitoring, tool
from tests.tiny import tiny_settings
from tests.waiting import until

pytestmark = pytest.mark.long


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
