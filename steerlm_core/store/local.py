"""Objects in a directory.

Every write goes to a temporary file beside its target and is then renamed (replace) or linked
(create-only), so that a reader sees a whole object or none, whenever the writer dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt

from steerlm_core import layout
from steerlm_core.errors import StoreError
from steerlm_core.store.hashes import file_sha256
from steerlm_core.store.moved import Count, uncounted
from steerlm_core.store.objects import Listed

_TRIES = 100
_PIECE = 8 << 20  # bytes of a file that are copied at once


class LocalObjects:
    """The `Objects` protocol on a directory."""

    def __init__(self, root: str | Path) -> None:
        """Name the root; nothing is created before the first write."""
        self.root = str(root)
        self._folder = Path(root)

    def url(self, key: str) -> str:
        """The file's name."""
        return str(self._folder / key)

    def path(self, key: str) -> Path:
        """The object's own file."""
        return self._folder / key

    def size(self, key: str) -> int | None:
        """Bytes of the object; None where there is none."""
        path = self._folder / key
        return path.stat().st_size if path.is_file() else None

    def read(self, key: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        try:
            return (self._folder / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and their hash; None where there is none."""
        data = self.read(key)
        return None if data is None else (data, _version(data))

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing an older one."""
        with self._temporary(key) as temporary:
            temporary.write_bytes(data)
            self._publish(temporary, key)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless one exists. True as well where `data` stands there already."""
        with self._temporary(key) as temporary:
            temporary.write_bytes(data)
            _flush(temporary)
            try:
                os.link(temporary, self._folder / key)
            except FileExistsError:
                return self.read(key) == data
            return True

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace an object if it is still of that version. True as well where `data` stands there already."""
        with self._lock():
            found = self.read(key)
            if found == data:
                return True
            if found is None or _version(found) != version:
                return False
            self.put(key, data)
            return True

    def upload(self, key: str, path: Path, count: Count = uncounted) -> None:
        """Write an object from a file."""
        with self._temporary(key) as temporary:
            _copy(path, temporary, count)
            self._publish(temporary, key)

    def download(self, key: str, path: Path, count: Count = uncounted) -> str | None:
        """Copy an object to a file; returns the sha256 of its bytes, None where there is none."""
        try:
            _copy(self._folder / key, path, count)
        except FileNotFoundError:
            return None
        return file_sha256(path)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, and the folders that become empty."""
        for key in keys:
            path = self._folder / key
            path.unlink(missing_ok=True)
            for folder in list(path.parents)[: key.count("/")]:
                with suppress(OSError):  # not empty, or gone
                    folder.rmdir()

    def listing(self, prefix: str) -> Iterator[Listed]:
        """List the files whose keys start with a prefix; unfinished ones too, for gc."""
        start = self._folder / prefix.rpartition("/")[0]
        for path in start.rglob("*"):
            key = path.relative_to(self._folder).as_posix()
            with suppress(FileNotFoundError):
                if key.startswith(prefix) and path.is_file() and not path.is_symlink() and key != layout.LOCK:
                    state = path.stat()
                    yield Listed(key, state.st_size, state.st_mtime)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / layout.LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _temporary(self, key: str) -> Iterator[Path]:
        parent = (self._folder / key).parent
        try:
            handle, name = _new_file(parent)
        except OSError as error:
            raise StoreError(f"{self.url(key)}: cannot be written ({error.strerror}).") from error
        os.close(handle)
        try:
            yield Path(name)
        except OSError as error:
            raise StoreError(f"{self.url(key)}: cannot be written ({error.strerror or error}).") from error
        finally:
            Path(name).unlink(missing_ok=True)

    def _publish(self, temporary: Path, key: str) -> None:
        _flush(temporary)
        os.replace(temporary, self._folder / key)


@retry(
    retry=retry_if_exception_type((FileNotFoundError, FileExistsError)), stop=stop_after_attempt(_TRIES), reraise=True
)
def _new_file(folder: Path) -> tuple[int, str]:
    """Make a temporary file in a folder that another runner may be removing at this moment, as it is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.mkstemp(prefix=layout.WRITING, dir=folder)


def _copy(source: Path, target: Path, count: Count) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        while piece := reading.read(_PIECE):
            writing.write(piece)
            count(len(piece))


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _flush(path: Path) -> None:
    """Bring a temporary file to the disk, readable by all, as what is made of it will be."""
    path.chmod(0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())
