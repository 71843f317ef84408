"""Child processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import signal
import sys


def end_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent of this process dies, however it dies; for `preexec_fn` too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
