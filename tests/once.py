"""What is made once for a whole run of the tests, whatever the number of its workers."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that no other process has; it ends with this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Once:
    """Folders that the first who asks fills, while the others wait."""

    def __init__(self, folder: Path) -> None:
        """Keep them below `folder`, which all workers share."""
        self._folder = folder

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder of that name, filled by `make`; not to be changed."""
        place, mark = self._folder / name, self._folder / f"{name}.made"
        with locked(self._folder / f"{name}.lock"):
            if not mark.exists():
                shutil.rmtree(place, ignore_errors=True)  # of one that failed
                place.mkdir()
                make(place)
                mark.touch()
        return place
