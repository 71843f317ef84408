"""The event stream of a run: what happens is said once, here; display, report and metrics read it.

    step ──► StepEvents ──► EventLog ──► <root>/events/<writer>-<n>.jsonl    (a sink: a file, or objects)
                                    └──► listeners (a display, a metrics endpoint)

Saying something must be cheap and must never fail: progress is throttled before anything is built,
and a broken listener or a full disk is reported once and then left alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from steerlm_core.errors import SteerLMError

Kind = Literal["started", "progress", "metric", "warning", "finished", "failed", "iteration"]

# Ten times a second is more than an eye follows; a file is read later, by people in less of a hurry.
_LISTENER_SECONDS = 0.1
_FILE_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: What kind of thing.
        time: Seconds since the epoch.
        run: Id of the run.
        iteration: Number of the iteration; None outside of one.
        step: The step that speaks; empty for the loop.
        shard: The shard of the step; None where the work is not split.
        fields: `done, total, unit` of progress; the values of a metric; `message` of a warning; `seconds` of
            finished and failed; `error` of the latter, and `reason` in one word if the error has one; evaluation and
            decision of an iteration.
    """

    kind: Kind
    time: float
    run: str
    iteration: int | None = None
    step: str = ""
    shard: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


class EventSink(Protocol):
    """Where events are written."""

    @property
    def place(self) -> str:
        """Its name, for messages."""

    def append(self, event: Mapping[str, Any], urgent: bool) -> None:
        """Add an event; an urgent one is to be read by others at once. May raise: then it is dropped."""

    def close(self) -> None:
        """Write what is still buffered."""


class EventLog:
    """Takes the events of one process, writes them to the run, and passes them to listeners."""

    def __init__(self, run_id: str, sink: EventSink | None, listeners: Iterable[Listener] = ()) -> None:
        """Name the log; nothing is created before the first event.

        Args:
            run_id: Id of the run.
            sink: Where the events are written; None: they are not.
            listeners: Called with every event, in the thread that it happens in; they should return at once.
        """
        self._run = run_id
        self._sink = sink
        self._listeners = list(listeners)
        self._lock = threading.RLock()

    @contextmanager
    def step(
        self, step: str, iteration: int | None = None, shard: int | None = None, course_written: bool = True
    ) -> Iterator[StepEvents]:
        """Say that a step starts, hand out its `Events`, and say how it ended.

        Args:
            step: The step.
            iteration: Its iteration.
            shard: Its shard.
            course_written: Write its start, progress and end too; not where another process does that.
        """
        start = time.monotonic()
        says = StepEvents(self, step, iteration, shard, course_written)
        says.emit("started", {})
        try:
            yield says
        except BaseException as error:
            what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            reason = {"reason": error.reason} if isinstance(error, SteerLMError) and error.reason else {}
            says.emit("failed", {"seconds": time.monotonic() - start, "error": what, **reason})
            raise
        says.emit("finished", {"seconds": time.monotonic() - start})

    def iteration(self, evaluation: Mapping[str, Any], commit: Mapping[str, Any]) -> None:
        """Say how an iteration ended: its `evaluation.json` and its `commit.json`."""
        fields = {key: value for key, value in {**evaluation, **commit}.items() if key != "iteration"}
        self.emit(self.event("iteration", "", int(commit["iteration"]), None, fields))

    def emit(self, event: Event, to_file: bool = True) -> None:
        """Write an event and pass it on. Never raises."""
        with self._lock:
            self._tell(event)
            if to_file:
                self._write(event)

    def close(self) -> None:
        """Write what is still buffered."""
        with self._lock:
            self._guard(lambda sink: sink.close())

    def event(self, kind: Kind, step: str, iteration: int | None, shard: int | None, fields: dict[str, Any]) -> Event:
        """Build an event of this run, now."""
        return Event(kind, time.time(), self._run, iteration, step, shard, fields)

    def _tell(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception as error:
                self._listeners.remove(listener)
                self._report(event, f"{type(listener).__name__} has stopped listening: {error!r}; the run goes on.")

    def _write(self, event: Event) -> None:
        urgent = event.kind not in ("progress", "metric")
        self._guard(lambda sink: sink.append(vars(event), urgent))

    def _guard(self, action: Callable[[EventSink], None]) -> None:
        """Act on the sink; after its first error there is none."""
        if self._sink is None:
            return
        try:
            action(self._sink)
        except Exception as error:
            lost, self._sink = self._sink, None
            message = f"events are no longer written to {lost.place} ({error}); the run goes on."
            self._report(self.event("warning", "", None, None, {}), message)

    def _report(self, cause: Event, message: str) -> None:
        if not self._listeners:
            _log.warning(message)
        self.emit(self.event("warning", cause.step, cause.iteration, cause.shard, {"message": message}))


class StepEvents:
    """The `Events` protocol of `steerlm_core.steps.context`: what a step may say."""

    def __init__(
        self, log: EventLog, step: str, iteration: int | None, shard: int | None, course_written: bool = True
    ) -> None:
        """Speak for one step."""
        self._log, self._step, self._iteration, self._shard = log, step, iteration, shard
        self._course_written = course_written
        self._next_told = self._next_written = 0.0
        self._unit = ""

    def emit(self, kind: Kind, fields: dict[str, Any], to_file: bool = True) -> None:
        """Say something of the given kind."""
        to_file = to_file and (self._course_written or kind in ("metric", "warning"))
        self._log.emit(self._log.event(kind, self._step, self._iteration, self._shard, fields), to_file)

    def progress(self, done: int, total: int, unit: str) -> None:
        """So many items of all are done; most calls are dropped, never the last of a count or the first of a unit."""
        now = time.monotonic()
        telling = done >= total or unit != self._unit
        if now < self._next_told and not telling:
            return
        to_file = telling or now >= self._next_written
        self._unit, self._next_told = unit, now + _LISTENER_SECONDS
        self._next_written = now + _FILE_SECONDS if to_file else self._next_written
        self.emit("progress", {"done": done, "total": total, "unit": unit}, to_file)

    def metric(self, **values: float) -> None:
        """Named numbers."""
        self.emit("metric", values)

    def warning(self, message: str) -> None:
        """Something that a person should know."""
        self.emit("warning", {"message": message})
