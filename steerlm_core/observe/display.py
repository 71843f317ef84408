"""What a person sees while a run works: a live picture on a terminal, plain or structured lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from steerlm_core import layout
from steerlm_core.observe.events import Event
from steerlm_core.observe.reader import Reader
from steerlm_core.observe.step_state import StepState
from steerlm_core.observe.text import duration, iteration_line, printable

_SECONDS_BETWEEN_LINES = 10.0


class Display(Reader):
    """A reader that shows events on a stream. By itself it shows warnings only."""

    name = "display"

    def __init__(self, stream: TextIO) -> None:
        """Show on `stream`."""
        super().__init__()
        self._stream = stream
        self._steps: dict[tuple[str, int | None, int | None], StepState] = {}

    def take(self, event: Event) -> None:
        """Follow the steps at work, and show what stays in view."""
        key = (event.step, event.iteration, event.shard)
        if event.kind == "started":
            self._steps[key] = StepState(event.step, event.iteration, event.time, event.shard)
        elif event.kind == "progress" and key in self._steps:
            self._steps[key].progress(event)
        elif event.kind in ("finished", "failed"):
            self._steps.pop(key, None)
        self.show(event)

    def steps_at_work(self) -> Iterable[StepState]:
        """Return what is known of the steps that work now."""
        return list(self._steps.values())

    def show(self, event: Event) -> None:
        """Show an event that stays in view."""
        if event.kind == "warning":
            self.print_line(f"{_place(event)}warning: {event.fields['message']}", event)

    def print_line(self, text: str, event: Event) -> None:
        """Print a line that stays."""
        print(f"{_clock(event.time)}  {printable(text)}", file=self._stream, flush=True)


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

    def __init__(self, stream: TextIO) -> None:
        """Draw on the terminal behind `stream`."""
        super().__init__(stream)
        self._started = 0.0  # when the first event happened, which may be long before this process began
        self._ended: dict[int, int] = {}  # steps that have ended, by iteration
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
        self._started = self._started or event.time
        if event.kind == "finished" and event.iteration is not None:
            self._ended[event.iteration] = self._ended.get(event.iteration, 0) + 1
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
        now, steps = time.time(), len(layout.ITERATION_STEPS)
        table = Table.grid(padding=(0, 2))
        for number in sorted({step.iteration for step in self._steps.values() if step.iteration is not None}):
            done = min(self._ended.get(number, 0), steps)
            bar = ProgressBar(total=steps, completed=done, width=24)
            table.add_row(Text(f"iteration {number}"), bar, Text(f"{done}/{steps} steps"), Text(""))
        for step in self._steps.values():
            bar = ProgressBar(total=step.total or 1, completed=step.done, width=24)
            table.add_row(Text(step.title), bar, Text(step.text), Text(duration(now - step.started), style="dim"))
        table.add_row(Text(f"{duration(now - (self._started or now))} in all", style="dim"))
        return table


def _iteration_style(event: Event) -> str:
    return "green" if event.fields.get("accepted") else "yellow"


def _place(event: Event) -> str:
    return f"{StepState(event.step, event.iteration, event.time, event.shard).title}: " if event.step else ""


def _ending(event: Event) -> str:
    seconds = duration(event.fields["seconds"])
    if event.kind == "failed":
        return f"{_place(event)}failed after {seconds}: {event.fields['error']}"
    return f"{_place(event)}{seconds}"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
