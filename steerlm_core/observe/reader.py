"""Readers of the event stream that work in a thread of their own: displays, trackers.

    the work's thread: event ──► queue          the reader's thread: queue ──► screen, server, file

The work only appends to a queue. Nothing that happens to a screen or a server can hold it up; after its first error a
reader says so once, and is silent.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self

from steerlm_core.observe.events import Event


class Reader:
    """A listener of the event log, and a context manager around the work."""

    name = "reader"
    period = 0.5
    """Seconds between two looks at the queue."""
    join_seconds = 2.0
    """How long the end of the work waits for the reader."""

    def __init__(self) -> None:
        """Begin with an empty queue."""
        self._queue: deque[Event] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def __call__(self, event: Event) -> None:
        """Take an event; costs an append."""
        self._queue.append(event)

    def __enter__(self) -> Self:
        """Start reading."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read the rest and stop; a reader that hangs is left behind."""
        self._stop.set()
        self._thread.join(self.join_seconds)

    def open(self) -> None:
        """Prepare."""

    def take(self, event: Event) -> None:
        """Handle an event."""

    def tick(self) -> None:
        """A period has passed."""

    def close(self) -> None:
        """Leave everything in order."""

    def _run(self) -> None:
        try:
            self.open()
            while not self._stop.wait(self.period):
                self._drain()
                self.tick()
            self._drain()
            self.tick()
        except Exception as error:  # whatever it is, the work goes on
            self._queue = deque(maxlen=0)
            with suppress(OSError, ValueError):
                print(f"the {self.name} has stopped ({error!r}); the run goes on.", file=sys.__stderr__, flush=True)
        with suppress(Exception):
            self.close()

    def _drain(self) -> None:
        while self._queue:
            self.take(self._queue.popleft())
