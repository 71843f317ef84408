"""How far a large transfer is, in MB; who moves the bytes counts them, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from steerlm_core.progress import Progress, unheard

Count = Callable[[int], object]
"""Called with the number of bytes that were moved since the last call."""

_TOLD_FROM = 32 << 20  # bytes; less is soon done, and would only fill the events


class Moved:
    """Counts bytes, and tells how many of all are done."""

    def __init__(self, total: int, what: str, progress: Progress) -> None:
        """Count nothing yet.

        Args:
            total: Bytes of all.
            what: What is done to them, in a word.
            progress: Told it, unless it is little.
        """
        self._total, self._unit = total, f"MB {what}"
        self._progress = progress if total >= _TOLD_FROM else unheard
        self._done, self._lock = 0, threading.Lock()

    def __call__(self, count: int) -> None:
        """So many bytes more; fewer where some must be moved again."""
        with self._lock:
            self._done += count
            self._progress(self._done >> 20, self._total >> 20, self._unit)


def uncounted(count: int) -> None:
    """Nobody counts."""
