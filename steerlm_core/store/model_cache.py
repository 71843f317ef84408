"""Copies of models on this machine: folders that are named by a hash of their content.

    <place>/.unfinished-XXXXXXXX/model/…  ─►  <place>/<hash>/…      by a rename: whole, or not there

Every byte is checked before a copy is used, as a disk may have lost some; a damaged copy is made anew.
Several processes, of several machines, may share the place.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from steerlm_core.errors import ScratchError
from steerlm_core.store.hashes import file_sha256
from steerlm_core.store.manifest import Part
from steerlm_core.store.moved import Count, uncounted

_UNFINISHED = ".unfinished-"
_UNFINISHED_SECONDS = 86_400.0  # a download that nobody has written to for so long was killed
_KEPT = 6  # where copies are dropped: prior, attribute model, and the policies of two iterations

_log = logging.getLogger(__name__)


class FolderCache:
    """The folders in one place."""

    def __init__(self, place: Path, keep_all: bool) -> None:
        """Name the place; nothing is created before the first download.

        Args:
            place: Where the folders lie.
            keep_all: Whether they outlive this process; else only those last used are kept.
        """
        self._place, self._keep_all = place, keep_all

    def folder(
        self, name: str, files: Mapping[str, Part], fetch: Callable[[Part, Path], object], count: Count = uncounted
    ) -> Path:
        """Return the whole, verified folder, downloading it where it is not there or damaged.

        Args:
            name: Its name, made of its content.
            files: Its files, by their path in it.
            fetch: Brings one here and checks it.
            count: Hears of the bytes of a copy that are checked.

        Raises:
            RunStateError: What `fetch` brings is missing or damaged.
            ScratchError: The place cannot be written to.
        """
        folder, damaged = self._place / name, 0
        if folder.is_dir():
            seen = folder.stat().st_ino
            if _is_whole(folder, files, count):
                with suppress(PermissionError):  # another user's
                    os.utime(folder)
                return folder
            _log.warning("%s: this copy of a model is damaged; it is downloaded again.", folder)
            damaged = seen
        try:
            self._download(folder, files, fetch, damaged)
        except OSError as error:
            raise ScratchError(
                f"{folder}: no copy of a model can be written here ({error.strerror or error}). Make room, correct the "
                "rights, or name another place: STEERLM_MODEL_CACHE."
            ) from error
        return folder

    def _download(
        self, folder: Path, files: Mapping[str, Part], fetch: Callable[[Part, Path], object], damaged: int
    ) -> None:
        self._place.mkdir(parents=True, exist_ok=True)
        self._clear()
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._place) as unfinished:
            new = Path(unfinished) / "model"
            for path, part in files.items():
                fetch(part, new / path)
            if self._keep_all:
                _flush(new)
            _publish(new, folder, damaged)

    def _clear(self) -> None:
        """Make room for one more, and remove what killed processes have left."""
        for left in self._place.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):  # another process removes it, or ends its download
                written = max(map(_modified, (left, *left.rglob("*"))))
                if time.time() - written > _UNFINISHED_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        if not self._keep_all:
            for old in sorted(self._place.glob("[!.]*"), key=_modified)[: 1 - _KEPT]:
                shutil.rmtree(old, ignore_errors=True)


def _is_whole(folder: Path, files: Mapping[str, Part], count: Count) -> bool:
    try:
        return all(file_sha256(folder / path, count) == part.sha256 for path, part in files.items())
    except OSError:
        return False


def _publish(new: Path, folder: Path, damaged: int) -> None:
    """Give a folder its name, unless somebody was faster, with the same content; a damaged one makes way."""
    with suppress(FileNotFoundError):
        if folder.stat().st_ino == damaged:
            folder.rename(new.with_name("damaged"))
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _flush(folder: Path) -> None:
    """Bring a folder to the disk: after the rename nobody would download it again."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _modified(path: Path) -> float:
    """When it was last written to; 0 where another process has removed it meanwhile."""
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
