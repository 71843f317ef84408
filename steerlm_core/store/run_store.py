"""One run root, on a disk or in a bucket: the `Store` protocol of `steerlm_core.steps.context`.

Tables and models carry a hash of their content in their keys, and every byte of them is checked
before it is used. What lies in a bucket is read from local copies: a table's is removed once it is
read, a model's is kept under the hash of its content ($STEERLM_MODEL_CACHE, else a scratch folder).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steerlm_core import layout
from steerlm_core.errors import RunStateError, ScratchError
from steerlm_core.progress import Progress, unheard
from steerlm_core.store.hashes import file_sha256, folder_name, whole_folder
from steerlm_core.store.manifest import Manifest, Part
from steerlm_core.store.mirror import CheckpointMirror
from steerlm_core.store.model_cache import FolderCache
from steerlm_core.store.moved import Count, Moved, uncounted
from steerlm_core.store.objects import Listed, Objects
from steerlm_core.store.scratch import Scratch
from steerlm_core.store.sealed import unseal

_HASHING = 4  # files at once


class RunStore:
    """The objects of one run, by keys relative to its root."""

    def __init__(self, objects: Objects) -> None:
        """Open the root; nothing is read or written yet."""
        self._objects = objects
        self._scratch: Scratch | None = None
        self._progress: Progress = unheard

    def telling(self, progress: Progress) -> RunStore:
        """The same root, and the same copies of models, for work that says how far large transfers are."""
        self._scratch = self._scratch or Scratch()
        told = copy(self)
        told._progress = progress
        return told

    @property
    def root(self) -> str:
        """The root as the user gave it."""
        return self._objects.root

    def url(self, key: str) -> str:
        """The object's full name, for messages."""
        return self._objects.url(key)

    def path(self, key: str) -> Path | None:
        """The object's own file; None in a bucket."""
        return self._objects.path(key)

    def exists(self, key: str) -> bool:
        """Whether an object of this key exists."""
        return self._objects.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        return self._objects.size(key)

    def read(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            RunStateError: There is none.
        """
        data = self._objects.read(key)
        if data is None:
            raise RunStateError(f"{self.url(key)}: missing.")
        return data

    def document(self, key: str) -> dict[str, Any]:
        """Read a sealed document.

        Raises:
            RunStateError: There is none, or it is damaged.
        """
        return unseal(self.read(key), self.url(key))

    def document_versioned(self, key: str) -> tuple[dict[str, Any], str] | None:
        """A sealed document and a token of its version, for `swap`; None where there is none.

        Raises:
            RunStateError: It is damaged.
        """
        found = self.read_versioned(key)
        return None if found is None else (unseal(found[0], self.url(key)), found[1])

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and a token of its version, for `swap`; None where there is none."""
        return self._objects.read_versioned(key)

    def put(self, key: str, data: bytes) -> None:
        """Write an object in one atomic put, replacing an older one."""
        self._objects.put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another stands there; False where one does."""
        return self._objects.create(key, data)

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace an object if it is still of that version."""
        return self._objects.swap(key, data, version)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        self._objects.delete(keys)

    def listing(self, prefix: str = "") -> Iterator[Listed]:
        """List objects, in any order; for people and for gc, never as state."""
        return self._objects.listing(prefix)

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a file."""
        self._objects.upload(key, path)

    def download(self, key: str, path: Path, count: Count = uncounted) -> None:
        """Write an object's bytes to a file; `count` hears of those that are there.

        Raises:
            RunStateError: There is none.
        """
        if self._objects.download(key, path, count) is None:
            raise RunStateError(f"{self.url(key)}: missing.")

    def write_table(self, prefix: str, number: int, table: pa.Table, split: str) -> Part:
        """Write one Parquet part; its key carries a hash of its content."""
        with self._temporary() as path:
            pq.write_table(table, path, compression="zstd")
            sha256 = file_sha256(path)
            key = layout.part(prefix, number, sha256[: layout.HASH_DIGITS])
            part = Part(key=key, rows=table.num_rows, size=path.stat().st_size, sha256=sha256, split=split)
            self._upload_once(part, path)
        return part

    def read_table(self, part: Part) -> pa.Table:
        """Read one part, verified against its sha256."""
        with self.passing_file(part) as path:
            return pq.read_table(path, memory_map=False)

    def local_file(self, part: Part) -> Path:
        """A local, verified copy of one part; on a disk the part itself.

        Raises:
            RunStateError: It is missing, or its bytes have changed.
        """
        if own := self._objects.path(part.key):
            return self._verified(part, own)
        path = self._folder("files") / part.sha256
        if not path.is_file() or file_sha256(path) != part.sha256:
            self._fetch(part, path)
        return path

    @contextmanager
    def passing_file(self, part: Part) -> Iterator[Path]:
        """A local, verified copy of one part that goes at the end; on a disk the part itself.

        Raises:
            RunStateError: It is missing, or its bytes have changed.
        """
        if own := self._objects.path(part.key):
            yield self._verified(part, own)
            return
        with self._temporary() as path:
            yield self._fetch(part, path)

    def write_folder(self, prefix: str, folder: Path) -> list[Part]:
        """Store every file of a folder below a prefix that carries a hash of their content."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        with ThreadPoolExecutor(_HASHING) as pool:
            hashes = list(pool.map(partial(file_sha256, count=Moved(size, "hashed", self._progress)), files))
        names = [path.relative_to(folder).as_posix() for path in files]
        content = folder_name(names, hashes)
        parts, stored = [], Moved(size, "stored", self._progress)
        for path, name, sha256 in zip(files, names, hashes, strict=True):
            part = Part(key=layout.model_file(prefix, content, name), size=path.stat().st_size, sha256=sha256)
            self._upload_once(part, path, stored)
            parts.append(part)
        return parts

    def local_folder(self, manifest: Manifest) -> Path:
        """A local copy of a folder that `write_folder` wrote, every file verified; on a disk the folder itself.

        Raises:
            RunStateError: A file is missing or damaged, or the manifest names no whole folder.
        """
        prefix, name = whole_folder(manifest, self.root)
        size = sum(part.size for part in manifest.parts)
        checked, fetched = (Moved(size, what, self._progress) for what in ("checked", "fetched"))
        files = {part.key.removeprefix(f"{prefix}{name}/"): part for part in manifest.parts}
        if own := self._objects.path(f"{prefix}{name}"):
            for file, part in files.items():
                self._verified(part, own / file, checked)
            return own
        return self._models().folder(name, files, partial(self._fetch, count=fetched), checked)

    @contextmanager
    def work_folder(self, key: str) -> Iterator[Path]:
        """A local folder for unfinished work, whose `checkpoints` survive the process where the root does."""
        if own := self._objects.path(key):
            own.mkdir(parents=True, exist_ok=True)
            yield own
            return
        folder = self._folder("work") / key
        folder.mkdir(parents=True, exist_ok=True)
        with CheckpointMirror(self, layout.checkpoints(key), folder / layout.CHECKPOINTS):
            yield folder

    def verify(self, part: Part) -> None:
        """Read a part's bytes and check them.

        Raises:
            RunStateError: It is missing or damaged.
        """
        with self.passing_file(part):
            pass

    def _upload_once(self, part: Part, path: Path, count: Count = uncounted) -> None:
        """Upload what is not there yet: an object is whole or absent, and its name is its content."""
        if self._objects.size(part.key) != part.size:
            self._objects.upload(part.key, path, count)
        else:
            count(part.size)

    def _verified(self, part: Part, path: Path, count: Count = uncounted) -> Path:
        if not path.is_file():
            raise self._missing(part)
        return self._compared(part, path, file_sha256(path, count))

    def _fetch(self, part: Part, path: Path, count: Count = uncounted) -> Path:
        """Bring a part here, and check it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found = self._objects.download(part.key, path, count)
        except OSError as error:
            raise ScratchError(
                f"{self.url(part.key)}: no copy of it can be written to {path.parent} ({error.strerror or error}). "
                "Make room there, or name another place: TMPDIR, and for models STEERLM_MODEL_CACHE."
            ) from error
        if found is None:
            raise self._missing(part)
        return self._compared(part, path, found)

    def _compared(self, part: Part, path: Path, found: str) -> Path:
        """Return the path of a part whose bytes have the hash `found`, if that is the right one."""
        if found != part.sha256:
            if self._objects.path(part.key) is None:
                path.unlink()  # the copy is of no use, and the next reader shall not find it
            raise RunStateError(
                f"{self.url(part.key)}: damaged (sha256 {found[:12]}…, its manifest says {part.sha256[:12]}…). "
                f"Restore it: `steerlm copy A_COPY_OF_THE_RUN {self.root}`; `steerlm verify` lists all that is damaged."
            )
        return path

    def _missing(self, part: Part) -> RunStateError:
        prefix = part.key
        while "/" in prefix:
            prefix = prefix.rpartition("/")[0]
            if self.exists(layout.removed(prefix)):
                return RunStateError(f"{self.url(prefix)}: removed by the run's retention; its manifest is kept.")
        return RunStateError(
            f"{self.url(part.key)}: missing, though a manifest names it. Restore it: "
            f"`steerlm copy A_COPY_OF_THE_RUN {self.root}`."
        )

    def _models(self) -> FolderCache:
        given = os.environ.get("STEERLM_MODEL_CACHE")
        return FolderCache(Path(given) if given else self._folder("models"), keep_all=bool(given))

    def _folder(self, name: str) -> Path:
        self._scratch = self._scratch or Scratch()
        folder = self._scratch.path / name
        folder.mkdir(exist_ok=True)
        return folder

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        path = self._folder("temporary") / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
