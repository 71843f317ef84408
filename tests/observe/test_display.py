"""What a person sees: plain lines in logs, a live picture on a terminal, and a run that outlives both."""

import io
import sys
import threading
import time

import pytest
from rich.table import Table

from steerlm_core.observe import display as display_module
from steerlm_core.observe.display import Display, PlainDisplay, RichDisplay
from steerlm_core.observe.display_mode import make_display
from steerlm_core.observe.events import Event, EventLog
from steerlm_core.observe.log_display import LogDisplay
from tests.observe.said import Terminal, work


def test_plain_lines_have_no_escape_codes_and_tell_all():
    stream = io.StringIO()
    work(PlainDisplay(stream))
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\\x1b[31mred" in text
    lines = [line[10:] for line in text.splitlines()]
    assert lines[0].startswith("prepare: 0.")
    assert lines[1].startswith("iteration 1 · train: warning: layout")
    assert lines[2].startswith("iteration 1 · train: 0.")
    assert lines[3] == "iteration 1   distance 0.331 [0.290, 0.370] → 0.122 [0.100, 0.150]   ESS 3.2 of 8   plateau"
    assert text.splitlines()[4] == "    The improvement is surely under 10%."
    assert len(lines) == 5


def test_plain_progress_is_rate_limited(monkeypatch):
    now = time.time()
    monkeypatch.setattr(display_module.time, "time", lambda: now)
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display(Event("started", now, "run-1", 0, "train"))
    for done in range(60):  # seconds
        now += 1
        display(Event("progress", now, "run-1", 0, "train", None, {"done": done, "total": 200, "unit": "groups"}))
        display._drain()
        display.tick()
    lines = [line for line in stream.getvalue().splitlines() if "/200 groups" in line]
    assert [line.split("/")[0].split()[-1] for line in lines] == ["9", "19", "29", "39", "49", "59"]
    assert "left" in lines[-1]


def test_quiet_shows_warnings_only():
    stream = io.StringIO()
    work(Display(stream))
    assert len(stream.getvalue().splitlines()) == 1
    assert "warning: layout" in stream.getvalue()


def test_rich_keeps_iterations_and_warnings_and_gives_the_cursor_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    work(RichDisplay(stream))
    text = stream.getvalue()
    assert "distance 0.331 [0.290, 0.370] → 0.122 [0.100, 0.150]   ESS 3.2 of 8   plateau" in text
    assert "\\x1b[31mred" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert not isinstance(sys.stderr, Terminal)


def test_rich_picture_shows_done_of_all_rate_and_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    display = RichDisplay(stream)
    begin = time.time() - 10
    display(Event("started", begin, "run-1", 2, "train"))
    display(Event("progress", begin + 5, "run-1", 2, "train", None, {"done": 100, "total": 300, "unit": "groups"}))
    display._drain()
    display._console.print(display.picture())
    assert "iteration 2 · train" in stream.getvalue()
    assert "100/300 groups · 20.0 groups/s · 10 s left" in stream.getvalue()


def test_the_picture_is_drawn_once_a_period_however_much_is_said(monkeypatch):
    """What one drawing costs is measured by benchmarks/display.py."""
    monkeypatch.setenv("TERM", "xterm")
    drawn: list[Table] = []

    class Counting(RichDisplay):
        def picture(self) -> Table:
            drawn.append(super().picture())
            return drawn[-1]

    def drawn_for(events: int) -> int:
        display = Counting(Terminal())
        display.open()
        drawn.clear()
        for _ in range(3):
            for done in range(events):
                display(Event("progress", 1.0, "run-1", 1, "train", None, {"done": done, "total": 9, "unit": "groups"}))
            display._drain()
            display.tick()
        found = len(drawn)
        display.close()
        return found

    assert drawn_for(1000) == drawn_for(1) == 3


def test_a_dead_screen_is_reported_once_and_never_reaches_the_work(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    complaints = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", complaints)
    work(PlainDisplay(Closed()))
    assert complaints.getvalue().count("the display has stopped") == 1


def test_a_hung_screen_never_holds_up_the_work(monkeypatch):
    reached, released = threading.Event(), threading.Event()

    class Paused(io.StringIO):
        def write(self, text: str) -> int:
            reached.set()
            released.wait()
            return len(text)

    monkeypatch.setattr(Display, "join_seconds", 0.1)
    display = PlainDisplay(Paused())
    display.period = 0.01
    try:
        work(display)  # comes to its end while the screen hangs
        assert reached.wait(60)
    finally:
        released.set()


@pytest.mark.parametrize(
    ("terminal", "environment", "kind"),
    [
        (True, {"TERM": "xterm"}, RichDisplay),
        (True, {"TERM": "xterm", "CI": "true"}, PlainDisplay),
        (True, {"TERM": "dumb"}, PlainDisplay),
        (False, {"TERM": "xterm"}, PlainDisplay),
        (False, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, LogDisplay),
        (True, {"TERM": "xterm", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, RichDisplay),
    ],
)
def test_auto_looks_at_where_it_is(monkeypatch, terminal, environment, kind):
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    assert type(make_display("auto")) is kind
    assert type(make_display("quiet")) is Display


def test_rich_shows_the_iteration_around_the_step(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    display = RichDisplay(stream)
    log = EventLog("run-1", None, [display])
    for step in ("generate", "label"):
        with log.step(step, 3):
            pass
    with log.step("train", 3, shard=1):
        display._drain()
        display._console.print(display.picture())
    text = stream.getvalue()
    assert "2/7 steps" in text
    assert "iteration 3 · train · shard 1" in text
