"""SIGTERM as a wish: noted when it comes, granted at the end of the step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """While it is open, SIGTERM sets `came` instead of ending the process; outside the main thread nothing changes."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.came = False
        self._before: Any = None

    def __enter__(self) -> StopSignal:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give SIGTERM back to whoever had it."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
