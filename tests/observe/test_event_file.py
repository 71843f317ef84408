"""Events in a file: one a writer, whole lines, and a disk that is full."""

import errno
import json
import logging

import pytest

from steerlm_core.observe import event_file
from steerlm_core.observe.event_file import EventFile
from steerlm_core.observe.event_store import read_events
from steerlm_core.observe.events import Event, EventLog
from steerlm_core.store import open_store


def _kinds(events: list[dict]) -> list[str]:
    return [event["kind"] for event in events]


def test_nothing_is_created_before_the_first_event(tmp_path):
    EventLog("run-1", EventFile(tmp_path / "events", "local")).close()
    assert not (tmp_path / "events").exists()


def test_a_full_disk_is_reported_once_and_the_work_goes_on(tmp_path, monkeypatch):
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(event_file.os, "write", full)
    heard: list[Event] = []
    log = EventLog("run-1", EventFile(tmp_path / "events", "local"), [heard.append])
    with log.step("train") as says:
        says.warning("first")
    log.close()
    messages = [event.fields["message"] for event in heard if event.kind == "warning"]
    assert len(messages) == 2
    assert "No space left on device" in messages[0]
    assert heard[-1].kind == "finished"


def test_without_a_listener_a_lost_file_is_logged(tmp_path, caplog):
    (tmp_path / "events").write_text("a file where the folder should be")
    with (
        caplog.at_level(logging.WARNING),
        EventLog("run-1", EventFile(tmp_path / "events", "local")).step("train") as says,
    ):
        says.metric(loss=1.0)
    assert len(caplog.records) == 1
    assert "no longer written" in caplog.text


def test_numbers_that_json_does_not_know_are_written_as_text(tmp_path):
    numpy = pytest.importorskip("numpy")
    log = EventLog("run-1", EventFile(tmp_path / "events", "local"))
    with log.step("train") as says:
        says.metric(loss=float("nan"), clip=numpy.float32("inf"), rate=numpy.float32(0.5))
    text = next((tmp_path / "events").glob("*.jsonl")).read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert lines[1]["fields"] == {"loss": "nan", "clip": "inf", "rate": 0.5}


def test_every_writer_has_its_own_file_and_torn_lines_are_left_out(tmp_path):
    logs = [EventLog("run-1", EventFile(tmp_path / "events", "local")) for _ in range(2)]
    for log in logs:
        with log.step("train"):
            pass
        log.close()
    assert sorted(path.name for path in (tmp_path / "events").iterdir()) == ["local-0.jsonl", "local-1.jsonl"]
    with (tmp_path / "events/local-1.jsonl").open("a") as file:
        file.write('{"kind": "warning", "time": 1.0, "fie')
    assert _kinds(read_events(open_store(str(tmp_path)))) == ["started", "finished", "started", "finished"]
