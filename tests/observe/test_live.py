"""Watching a run from elsewhere, and what may happen to a display: real processes, a real bucket, a real terminal."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from steerlm_core.config import parse_config
from steerlm_core.observe import event_file
from steerlm_core.observe.event_store import event_sink, read_events
from steerlm_core.observe.events import EventLog
from steerlm_core.report.html import write_html
from steerlm_core.run import open_run
from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore
from tests.in_process import STEERLM
from tests.runs import loop_at
from tests.tiny import tiny_settings
from tests.waiting import until

HERE = Path(__file__).parents[2]


def _start(*words: object, **how: object) -> subprocess.Popen[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": HERE, **how}
    return subprocess.Popen([*STEERLM, *map(str, words)], **options)


@pytest.fixture
def config(tmp_path) -> Path:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_settings()))
    return tmp_path / "tiny.yaml"


@pytest.mark.long
def test_a_run_in_a_bucket_is_watched_from_elsewhere_until_it_ends(bucket, config):
    run = _start("run", config, "--root", bucket)
    store = open_store(bucket)

    def begun() -> bool:
        assert run.poll() is None, run.communicate()
        return store.exists("run.json")

    until("run.json", begun, 100)
    watching = _start("status", bucket, "--watch", "--display", "plain")
    shown, said = watching.communicate(timeout=200)
    assert watching.returncode == 0, said
    assert run.wait(60) == 0
    lines = [line[10:] for line in said.splitlines()]
    assert [line[:11] for line in lines if "distance" in line and "→" in line] == ["iteration 0", "iteration 1"]
    assert any(line.startswith("iteration 1 · train: ") for line in lines)
    assert lines[-1].startswith("confirm: ")
    assert "On fresh candidates" in shown
    _assert_a_step_of_its_own_says_all(bucket, store)
    write_html([open_run(bucket)], config.parent / "report.html")
    assert "<h2>Samples</h2>" in (config.parent / "report.html").read_text()


def _assert_a_step_of_its_own_says_all(root: str, store: RunStore) -> None:
    """A step in a pod: structured lines, and its last event is in the bucket when its process has ended."""
    code = f"from steerlm_core.runtime import *\nwith opened('{root}') as run: run_step(run, 'weigh', 0)"
    environment = {**os.environ, "KUBERNETES_SERVICE_HOST": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=HERE, capture_output=True, text=True, check=True
    )
    run_id = json.loads(store.read("run.json"))["run_id"]
    said = [line.split(" ", 2)[2] for line in done.stderr.splitlines()]
    assert said[0] == f"run={run_id} iteration=0 step=weigh event=started"
    assert said[-1].startswith(f"run={run_id} iteration=0 step=weigh event=finished seconds=")
    last = [event["kind"] for event in read_events(store) if (event["step"], event["iteration"]) == ("weigh", 0)]
    assert last[-2:] == ["started", "finished"]
    assert last.count("finished") == 2


def test_what_was_shown_once_is_not_shown_again(tmp_path):
    from steerlm_core.observe.live import LiveEvents

    store = open_store(str(tmp_path))
    log, live = EventLog("run-1", event_sink(store)), LiveEvents(store)
    assert live.new() == []
    with log.step("train", 1, shard=2) as says:
        assert [(event.kind, event.step, event.iteration, event.shard) for event in live.new()] == [
            ("started", "train", 1, 2)
        ]
        says.warning("look")
        assert [event.fields for event in live.new()] == [{"message": "look"}]
        assert live.new() == []
    other = EventLog("run-1", event_sink(store))
    with other.step("label"):
        assert [event.step for event in live.new()] == ["train", "label"]


@pytest.mark.long
def test_a_terminal_shows_a_live_picture_and_gets_its_cursor_back(config, tmp_path):
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    run = _start("run", config, "--root", tmp_path / "run", stderr=theirs,
                 env={**environment, "TERM": "xterm-256color", "COLUMNS": "150"})  # fmt: skip
    os.close(theirs)
    text = _until_closed(ours)
    assert run.wait(60) == 0
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert re.search(r"iteration \d", text)
    assert text.count("→") >= 2


def _until_closed(handle: int) -> str:
    """Read a terminal to its end, as a terminal does: nobody waits for it."""
    found = b""
    while True:
        select.select([handle], [], [], 200)
        try:
            data = os.read(handle, 65536)
        except OSError:  # how Linux says that the other side is gone
            data = b""
        if not data:
            return found.decode(errors="replace")
        found += data


@pytest.mark.long
def test_a_display_whose_reader_is_gone_never_kills_the_run(config, tmp_path):
    run = _start("run", config, "--root", tmp_path / "run", "--display", "plain")
    run.stderr.readline()
    run.stderr.close()  # as `| head -1` does
    out = run.stdout.read()
    assert run.wait(200) == 0
    assert "On fresh candidates" in out
    assert open_store(str(tmp_path / "run")).exists("iterations/001/commit.json")


def test_a_disk_that_is_full_for_events_is_reported_once_and_the_run_ends(tmp_path, monkeypatch):
    write, room = os.write, 4000

    def full(handle: int, data: bytes) -> int:
        nonlocal room
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        room -= len(data)
        return write(handle, data)

    heard = []
    store = open_store(str(tmp_path / "run"))
    log = EventLog("tiny", event_sink(store), [heard.append])
    with monkeypatch.context() as patch:
        patch.setattr(event_file.os, "write", full)
        loop_at(tmp_path / "run", parse_config(tiny_settings(), "tiny"), log=log)
        log.close()
    messages = [event.fields["message"] for event in heard if event.kind == "warning"]
    assert len([message for message in messages if "No space left on device" in message]) == 1
    assert store.exists("iterations/001/commit.json")
    assert 0 < len(read_events(store)) < len(heard)
