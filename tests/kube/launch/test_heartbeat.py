"""What the launcher hears of a job through a real run root."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core import layout
from steerlm_core.kube.job.files import Progress
from steerlm_core.kube.launch import heartbeat as heartbeat_module
from steerlm_core.kube.launch.heartbeat import HeartbeatExchange
from steerlm_core.store import open_store
from tests.waiting import until


def test_the_pace_of_training_is_known_from_the_second_progress_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "_POLL_SECONDS", 0.01)
    store = open_store(str(tmp_path))
    exchange = HeartbeatExchange(store, "job", "me", 60.0)
    try:
        for step, at, pace in ((2, 100.0, 0.0), (2, 130.0, 0.0), (5, 190.0, 20.0)):
            progress = Progress(step=step, steps=9, loss=1.0, time=at)
            store.put(layout.job_progress("job"), progress.model_dump_json().encode())
            until("progress", lambda wanted=progress: exchange.progress == wanted, 10, 0.01)  # type: ignore[misc]
            assert exchange.step_seconds == pace
    finally:
        exchange.close()
