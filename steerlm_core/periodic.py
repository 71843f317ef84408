"""Work that a thread of its own does again and again beside everything else, until it is closed.

The thread is a daemon: no process lives on for it. What the work raises ends the thread, so work that may fail says so
itself and returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self


class Periodic:
    """Does something every so many seconds."""

    def __init__(self, action: Callable[[], None], seconds: float, name: str, at_once: bool = False) -> None:
        """Get ready.

        Args:
            action: What is done.
            seconds: From the end of one time to the beginning of the next.
            name: Of the thread.
            at_once: Whether the first time is at the start, and not after a pause.
        """
        self._action, self._seconds, self._at_once = action, seconds, at_once
        self._wake, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def wake(self) -> None:
        """Let the next time be now."""
        self._wake.set()

    def stop(self) -> None:
        """Let what is being done be the last, and do not wait for it; the action itself may ask for this."""
        self._stopped = True
        self._wake.set()

    def close(self) -> None:
        """Stop, and wait until nothing is being done any more."""
        self.stop()
        self._thread.join()

    def _run(self) -> None:
        if not self._at_once:
            self._wake.wait(self._seconds)
        while True:
            self._wake.clear()  # before the look at what `stop` says, or its wake could be lost
            if self._stopped:
                return
            self._action()
            self._wake.wait(self._seconds)


class AfterChanges:
    """Does something after a change, at once, but no sooner than so many seconds after the last time."""

    def __init__(self, action: Callable[[], None], seconds: float, name: str) -> None:
        """Get ready; the thread begins with the first change.

        Args:
            action: What is done.
            seconds: From one beginning to the next, at least.
            name: Of the thread.
        """
        self._action, self._seconds = action, seconds
        self._changed, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def changed(self) -> None:
        """Say that something has changed; from one thread at a time."""
        self._changed.set()
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Have it done for the last time, and wait for that."""
        self._end.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self._changed.wait()
            self._changed.clear()
            started = time.monotonic()
            self._action()
            self._end.wait(max(0.0, self._seconds - (time.monotonic() - started)))
        self._action()
