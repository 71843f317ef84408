"""What a run store needs of the place where objects lie: a directory or a bucket.

Keys are relative to the run root. An object is whole or absent, whenever its writer dies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from steerlm_core.store.moved import Count, uncounted


@dataclass(frozen=True)
class Listed:
    """One object of a listing.

    Attributes:
        key: Its key, relative to the root.
        size: Bytes.
        modified: Seconds since the epoch.
        tag: What tells this version of the object from others; empty where the store gives none.
    """

    key: str
    size: int
    modified: float
    tag: str = ""


class Objects(Protocol):
    """Objects below one root."""

    root: str

    def url(self, key: str) -> str:
        """The object's full name, for messages."""

    def path(self, key: str) -> Path | None:
        """The object's own file; None where objects are no files."""

    def size(self, key: str) -> int | None:
        """Bytes of the object; None where there is none."""

    def read(self, key: str) -> bytes | None:
        """The object's bytes; None where there is none."""

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and a token of its version; None where there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing an older one."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless one exists. True as well where `data` stands there already."""

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace an object if it is still of that version. True as well where `data` stands there already."""

    def upload(self, key: str, path: Path, count: Count = uncounted) -> None:
        """Write an object from a file, of any size, in bounded memory; `count` hears of the bytes that are moved."""

    def download(self, key: str, path: Path, count: Count = uncounted) -> str | None:
        """Write an object's bytes to a file, in bounded memory; returns their sha256, None where there is none."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are left out."""

    def listing(self, prefix: str) -> Iterator[Listed]:
        """List the objects whose keys start with a prefix, in any order; for people and for gc, never as state."""
