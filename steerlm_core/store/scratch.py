"""A scratch folder that goes with its process, and, where that was killed, with the next one that starts."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import weakref
from pathlib import Path

_PREFIX, _LOCK = "steerlm-scratch-", ".in-use"


class Scratch:
    """A new folder below the system's temporary one; models' copies in it are too large to be left behind."""

    def __init__(self) -> None:
        """Remove what killed processes have left, and make the folder."""
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_unless_used(folder)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = (self.path / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _remove_unless_used(folder: Path) -> None:
    """Remove a folder whose lock nobody holds: the kernel frees it when a process ends, however it ends."""
    try:
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # in use, just being made, or another user's
