"""A run root on a local disk.

Every write goes to a temporary file beside its target and is then renamed (replace) or linked
(create-only), so that a reader sees a whole object or none, whenever the writer dies.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from steerlm_core.errors import RunStateError
from steerlm_core.manifest import Manifest, Part

_BLOCK = 1 << 20
_HASH_IN_NAME = 12


class LocalStore:
    """The `Store` protocol of `steerlm_core.steps.context` on a directory."""

    def __init__(self, root: str | Path) -> None:
        """Name the root; nothing is created before the first write."""
        self._root = Path(root)

    @property
    def root(self) -> str:
        """The root as the user gave it."""
        return str(self._root)

    def exists(self, key: str) -> bool:
        """Whether an object of this key exists."""
        return (self._root / key).is_file()

    def read(self, key: str) -> bytes:
        """The object's bytes."""
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError as error:
            raise RunStateError(f"{self._root / key}: missing.") from error

    def put(self, key: str, data: bytes) -> None:
        """Write an object atomically, replacing an older one."""
        with self._temporary(key) as temporary:
            temporary.write_bytes(data)
            self._publish(temporary, key)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless one exists; False when one did."""
        with self._temporary(key) as temporary:
            temporary.write_bytes(data)
            _flush(temporary)
            try:
                os.link(temporary, self._root / key)
            except FileExistsError:
                return False
            return True

    def write_table(self, prefix: str, number: int, table: pa.Table, split: str) -> Part:
        """Write one Parquet part; its key carries a hash of its content."""
        with self._temporary(f"{prefix}/part") as temporary:
            pq.write_table(table, temporary, compression="zstd")
            sha256 = _sha256(temporary)
            key = f"{prefix}/part-{number:05d}-{sha256[:_HASH_IN_NAME]}.parquet"
            part = Part(key=key, rows=table.num_rows, size=temporary.stat().st_size, sha256=sha256, split=split)
            self._publish(temporary, key)
        return part

    def read_table(self, part: Part) -> pa.Table:
        """Read one part, verified against its sha256."""
        return pq.read_table(self.local_file(part))

    def local_file(self, part: Part) -> Path:
        """The part's own file, verified.

        Raises:
            RunStateError: It is missing, or its bytes have changed.
        """
        path = self._root / part.key
        if not path.is_file():
            raise RunStateError(f"{path}: missing, though a manifest names it.")
        found = _sha256(path)
        if found != part.sha256:
            raise RunStateError(f"{path}: damaged (sha256 {found[:12]}…, its manifest says {part.sha256[:12]}…).")
        return path

    def write_folder(self, prefix: str, folder: Path) -> list[Part]:
        """Store every file of a folder below a prefix that carries a hash of their content."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        hashes = [_sha256(path) for path in files]
        names = [path.relative_to(folder).as_posix() for path in files]
        content = _folder_name(names, hashes)
        parts = []
        for path, name, sha256 in zip(files, names, hashes, strict=True):
            key = f"{prefix}/{content}/{name}"
            with self._temporary(key) as temporary:
                _copy(path, temporary)
                self._publish(temporary, key)
            parts.append(Part(key=key, size=path.stat().st_size, sha256=sha256))
        return parts

    def local_folder(self, manifest: Manifest) -> Path:
        """The folder itself, every file verified.

        Raises:
            RunStateError: A file is missing or damaged, or the manifest names no whole folder.
        """
        paths = [self.local_file(part) for part in manifest.parts]
        hashes = [part.sha256 for part in manifest.parts]
        common = Path(os.path.commonpath(paths)) if paths else self._root
        for folder in (common, *common.parents):  # all files may stand in one folder below it
            names = [path.relative_to(folder).as_posix() for path in paths]
            if folder.name == _folder_name(names, hashes):
                return folder
        raise RunStateError(f"{self._root}: the manifest of '{manifest.step}' names no whole folder of files.")

    def work_folder(self, key: str) -> Path:
        """A folder inside the root."""
        folder = self._root / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def _temporary(self, key: str) -> Iterator[Path]:
        parent = (self._root / key).parent
        parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=parent)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _publish(self, temporary: Path, key: str) -> None:
        _flush(temporary)
        os.replace(temporary, self._root / key)


def _folder_name(names: Sequence[str], hashes: Sequence[str]) -> str:
    """The hash that names a folder with these files, in order."""
    listed = "".join(f"{name}{sha256}" for name, sha256 in zip(names, hashes, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()[:_HASH_IN_NAME]


def _flush(path: Path) -> None:
    """Bring a temporary file to the disk, readable by all, as what is made of it will be."""
    path.chmod(0o644)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            writer.write(block)


def _sha256(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
