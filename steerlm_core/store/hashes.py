"""Names made of content: an object under such a name is whole and right, or not there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.store.manifest import Manifest
from steerlm_core.store.moved import Count, uncounted

_PIECE = 1 << 20  # bytes that are read at once


def whole_folder(manifest: Manifest, root: str) -> tuple[str, str]:
    """Return the prefix and the name of the folder whose files a manifest names.

    Raises:
        RunStateError: A file of it is not named, or no folder is.
    """
    hashes = [part.sha256 for part in manifest.parts]
    keys = [part.key for part in manifest.parts]
    pieces = keys[0].split("/")[:-1] if keys else []
    for depth in reversed(range(len(pieces))):
        start = "/".join(pieces[: depth + 1]) + "/"
        if all(key.startswith(start) for key in keys):
            names = [key.removeprefix(start) for key in keys]
            if pieces[depth] == folder_name(names, hashes):
                return start.removesuffix(f"{pieces[depth]}/"), pieces[depth]
    raise RunStateError(f"{root}: the manifest of '{manifest.step}' names no whole folder of files.")


def folder_name(names: Sequence[str], hashes: Sequence[str]) -> str:
    """Return the hash that names a folder with these files, in order."""
    listed = "".join(f"{name}{sha256}" for name, sha256 in zip(names, hashes, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()[: layout.HASH_DIGITS]


def file_sha256(path: Path, count: Count = uncounted) -> str:
    """Return the sha256 of a file's bytes; `count` hears of each that is read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_PIECE))
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            count(size)
    return digest.hexdigest()
