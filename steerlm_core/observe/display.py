"""What a person sees while a run works: a live picture on a terminal, plain lines everywhere else.

    the work's thread: event ──► queue          the display's thread: queue ──► steps at work ──► screen

The work only appends to a queue. Nothing that happens to the screen (a closed pipe, a terminal that
was paused) can hold it up; after its first error the display is silent.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from steerlm_core.observe.events import Event
from steerlm_core.observe.step_state import StepState
from steerlm_core.observe.text import duration, iteration_line, printable

Mode = Literal["auto", "rich", "plain", "quiet"]

_JOIN_SECONDS = 2.0
_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """A listener of the event log, and a context manager around the work. By itself it shows warnings only."""

    period = 0.5
    """Seconds between two looks at the queue."""

    def __init__(self, stream: TextIO) -> None:
        """Show on `stream`."""
        self._stream = stream
        self._queue: deque[Event] = deque()
        self._steps: dict[tuple[str, int | None, int | None], StepState] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)

    def __call__(self, event: Event) -> None:
        """Take an event; costs an append."""
        self._queue.append(event)

    def __enter__(self) -> Self:
        """Start showing."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the rest and stop; a screen that hangs is left behind."""
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def open(self) -> None:
        """Prepare the screen."""

    def show(self, event: Event) -> None:
        """Show an event that stays in view."""
        if event.kind == "warning":
            self.print_line(f"{_place(event)}warning: {event.fields['message']}", event)

    def tick(self) -> None:
        """A period has passed: refresh what moves."""

    def close(self) -> None:
        """Leave the screen as it was."""

    def print_line(self, text: str, event: Event) -> None:
        """Print a line that stays."""
        print(f"{_clock(event.time)}  {printable(text)}", file=self._stream, flush=True)

    def _run(self) -> None:
        try:
            self.open()
            while not self._stop.wait(self.period):
                self._drain()
                self.tick()
            self._drain()
        except Exception as error:  # whatever it is, the work goes on
            self._queue = deque(maxlen=0)
            with suppress(OSError, ValueError):
                print(f"the display has stopped ({error!r}); the run goes on.", file=sys.__stderr__, flush=True)
        with suppress(Exception):
            self.close()

    def _drain(self) -> None:
        while self._queue:
            event = self._queue.popleft()
            self._follow(event)
            self.show(event)

    def _follow(self, event: Event) -> None:
        key = (event.step, event.iteration, event.shard)
        if event.kind == "started":
            self._steps[key] = StepState(event.step, event.iteration, event.time)
        elif event.kind == "progress" and key in self._steps:
            self._steps[key].progress(event)
        elif event.kind in ("finished", "failed"):
            self._steps.pop(key, None)


class PlainDisplay(Display):
    """Lines for a log: no escape codes, and at most a line every ten seconds while a step works."""

    def __init__(self, stream: TextIO) -> None:
        """Print to `stream`."""
        super().__init__(stream)
        self._last_line = time.time()

    def show(self, event: Event) -> None:
        """Print how steps and iterations ended, and warnings."""
        super().show(event)
        if event.kind in ("finished", "failed"):
            self.print_line(_ending(event), event)
        elif event.kind == "iteration":
            self.print_line(iteration_line(event.iteration or 0, event.fields), event)

    def tick(self) -> None:
        """Print where the steps at work stand, if nothing was printed for a while."""
        now = time.time()
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        for step in self._steps.values():
            state = step.text or f"at work for {duration(now - step.started)}"
            self.print_line(f"{step.title}: {state}", Event("progress", now, ""))

    def print_line(self, text: str, event: Event) -> None:
        """Print a line that stays."""
        super().print_line(text, event)
        self._last_line = time.time()


class RichDisplay(Display):
    """A live line for every step at work, below one line for every finished iteration."""

    period = 0.5

    def __init__(self, stream: TextIO) -> None:
        """Draw on the terminal behind `stream`."""
        super().__init__(stream)
        self._started = time.time()
        self._console = Console(file=stream, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, get_renderable=self.picture)

    def open(self) -> None:
        """Begin the live picture."""
        self._live.start()

    def close(self) -> None:
        """Take the live picture away; the lines stay."""
        self._live.stop()

    def show(self, event: Event) -> None:
        """Print iterations, what went wrong, and how steps outside of an iteration ended."""
        super().show(event)
        if event.kind == "failed" or (event.kind == "finished" and event.iteration is None):
            self.print_line(_ending(event), event)
        elif event.kind == "iteration":
            self.print_line(iteration_line(event.iteration or 0, event.fields), event)

    def tick(self) -> None:
        """Redraw."""
        self._live.refresh()

    def print_line(self, text: str, event: Event) -> None:
        """Print a line that stays."""
        styles = {"warning": "yellow", "failed": "red", "finished": "dim", "iteration": _iteration_style(event)}
        self._console.print(Text(printable(text), style=styles[event.kind]))

    def picture(self) -> Table:
        """Return the live picture: a row for every step at work, and the time of all."""
        now = time.time()
        table = Table.grid(padding=(0, 2))
        for step in self._steps.values():
            bar = ProgressBar(total=step.total or 1, completed=step.done, width=24)
            table.add_row(Text(step.title), bar, Text(step.text), Text(duration(now - step.started), style="dim"))
        table.add_row(Text(f"{duration(now - self._started)} in all", style="dim"))
        return table


def make_display(mode: Mode) -> Display:
    """Return the display of a mode, on standard error.

    `auto` is rich on a terminal, and plain where there is none, in CI and on dumb terminals; `quiet`
    shows warnings only.
    """
    if mode == "auto":
        mode = "rich" if _is_live(sys.stderr) else "plain"
    kinds: dict[Mode, type[Display]] = {"rich": RichDisplay, "plain": PlainDisplay, "quiet": Display}
    return kinds[mode](sys.stderr)


def _is_live(stream: TextIO) -> bool:
    return stream.isatty() and "CI" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"


def _iteration_style(event: Event) -> str:
    return "green" if event.fields.get("accepted") else "yellow"


def _place(event: Event) -> str:
    return f"{StepState(event.step, event.iteration, event.time).title}: " if event.step else ""


def _ending(event: Event) -> str:
    seconds = duration(event.fields["seconds"])
    if event.kind == "failed":
        return f"{_place(event)}failed after {seconds}: {event.fields['error']}"
    return f"{_place(event)}{seconds}"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
