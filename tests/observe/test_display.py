"""What a person sees: plain lines in logs, a live picture on a terminal, and a run that outlives both."""

import io
import logging
import sys
import threading
import time

import pytest

from steerlm_core.observe import display as display_module
from steerlm_core.observe.display import Display, PlainDisplay, RichDisplay
from steerlm_core.observe.display_mode import make_display
from steerlm_core.observe.events import Event, EventLog
from steerlm_core.observe.log_display import LogDisplay
from steerlm_core.observe.step_state import StepState
from steerlm_core.observe.text import duration, interval, iteration_line, printable, rate
from tests.waiting import until

EVALUATION = {
    "distance_before": {"mean": 0.331, "low": 0.29, "high": 0.37},
    "distance_after": {"mean": 0.122, "low": 0.1, "high": 0.15},
    "ess_median": 3.24,
    "n_candidates": 8,
}
COMMIT = {"iteration": 1, "accepted": True, "kind": "plateau", "reason": "The improvement is surely under 10%."}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _work(display: Display) -> None:
    with display:
        log = EventLog("run-1", None, [display])
        with log.step("prepare"):
            pass
        with log.step("train", 1) as says:
            for done in range(50):
                says.progress(done + 1, 50, "groups")
            says.warning("layout: padded \x1b[31mred")
        log.iteration(EVALUATION, COMMIT)


def test_plain_lines_have_no_escape_codes_and_tell_all():
    stream = io.StringIO()
    _work(PlainDisplay(stream))
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
    def lines(seconds: float) -> list[str]:
        monkeypatch.setattr(display_module, "_SECONDS_BETWEEN_LINES", seconds)
        stream = io.StringIO()
        display = PlainDisplay(stream)
        display.period = 0.01
        with display, EventLog("run-1", None, [display]).step("train", 0) as says:
            for done in range(20):
                says.progress(done, 200, "groups")
                time.sleep(0.02)
        return [line for line in stream.getvalue().splitlines() if "/200 groups" in line]

    assert lines(10.0) == []
    assert len(lines(0.0)) > 3
    assert "left" in lines(0.0)[-1]


def test_quiet_shows_warnings_only():
    stream = io.StringIO()
    _work(Display(stream))
    assert len(stream.getvalue().splitlines()) == 1
    assert "warning: layout" in stream.getvalue()


def test_rich_keeps_iterations_and_warnings_and_gives_the_cursor_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    _work(RichDisplay(stream))
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


def test_the_picture_costs_under_a_hundredth_of_the_time(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    display = RichDisplay(Terminal())
    for step in ("prepare", "train", "evaluate"):
        display(Event("started", time.time(), "run-1", 1, step))
        display(Event("progress", time.time(), "run-1", 1, step, None, {"done": 1, "total": 9, "unit": "groups"}))
    display._drain()
    display.open()
    display.tick()
    start, ticks = time.thread_time(), 20
    for _ in range(ticks):
        display.tick()
    spent = (time.thread_time() - start) / ticks
    display.close()
    assert spent < 0.01 * display.period


def test_a_dead_screen_is_reported_once_and_never_reaches_the_work(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    complaints = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", complaints)
    _work(PlainDisplay(Closed()))
    assert complaints.getvalue().count("the display has stopped") == 1


def test_a_hung_screen_never_holds_up_the_work(monkeypatch):
    gone = threading.Event()

    class Paused(io.StringIO):
        def write(self, text: str) -> int:
            gone.wait(30)
            return len(text)

    monkeypatch.setattr(Display, "join_seconds", 0.1)
    start = time.monotonic()
    _work(PlainDisplay(Paused()))
    assert time.monotonic() - start < 5
    gone.set()


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


def test_the_estimate_starts_anew_with_a_new_unit():
    state = StepState("prepare", None, started=0.0)
    for at, done, total, unit in ((10.0, 10, 10, "texts"), (20.0, 0, 100, "passes"), (30.0, 50, 100, "passes")):
        state.progress(
            Event("progress", at, "run-1", None, "prepare", None, {"done": done, "total": total, "unit": unit})
        )
    assert state.text == "50/100 passes · 5.0 passes/s · 10 s left"


def test_words_of_numbers():
    assert [duration(s) for s in (0.42, 12.4, 59.7, 185, 3725)] == ["0.4 s", "12 s", "60 s", "3:05", "1:02:05"]
    assert [rate(r, "groups") for r in (0.25, 2.04, 350.0)] == ["4.0 s per group", "2.0 groups/s", "350 groups/s"]
    assert interval({"mean": 0.5, "low": 0.25, "high": 1}) == "0.500 [0.250, 1.000]"
    assert interval(None) == "–"
    assert "not accepted" in iteration_line(0, {**EVALUATION, "kind": "regressed", "accepted": False})
    assert printable("a\x1b]0;title\x07\n\u202eb") == "a\\x1b]0;title\\x07\n\\u202eb"


def test_structured_lines_name_run_iteration_step_and_shard():
    stream = io.StringIO()
    display = LogDisplay(stream)
    with display:
        log = EventLog("run-1", None, [display])
        with log.step("label", 2, shard=3) as says:
            for done in range(30):
                says.progress(done + 1, 30, "groups")
            says.warning('layout: "padded" \x1b[31m\nred')
            says.metric(step=7.0, loss=0.25)
        log.iteration(EVALUATION, COMMIT)
    lines = [line.split(" ", 2)[2] for line in stream.getvalue().splitlines()]
    where = "run=run-1 iteration=2 step=label shard=3"
    assert lines[0] == f"{where} event=started"
    assert lines[1] == f"{where} event=progress done=1 total=30 unit=groups"
    assert lines[2] == f'{where} event=warning message="layout: \\"padded\\" \\\\x1b[31m\\nred"'
    assert lines[3] == f"{where} event=metric optimizer_step=7 loss=0.25"
    assert lines[4].startswith(f"{where} event=finished seconds=")
    assert "distance_after.mean=0.122" in lines[5]
    assert 'reason="The improvement is surely under 10%."' in lines[5]
    assert len(lines) == 6
    assert [line.split(" ")[1] for line in stream.getvalue().splitlines()].count("level=warning") == 1


def test_structured_lines_carry_the_librarys_records_with_the_step_at_work():
    stream = io.StringIO()
    display = LogDisplay(stream)
    display.period = 0.01
    with display, EventLog("run-1", None, [display]).step("train", 1):
        until("the step has started", lambda: "event=started" in stream.getvalue(), 10, 0.01)
        logging.getLogger("steerlm.training").info("continuing from step %d", 7)
    assert (
        'iteration=1 step=train event=log logger=steerlm.training message="continuing from step 7"' in stream.getvalue()
    )
    before = stream.getvalue()
    logging.getLogger("steerlm.training").warning("after the end")
    assert stream.getvalue() == before


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
