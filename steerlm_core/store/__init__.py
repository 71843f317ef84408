"""Where a run lies: `open_store` is the one way in."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from steerlm_core.errors import ConfigError
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.run_store import RunStore

_S3 = "s3://"


def open_store(root: str, attempts: int | None = None) -> RunStore:
    """Open a run root; nothing is read or written yet.

    Args:
        root: A directory, `file:///DIRECTORY`, or `s3://BUCKET/PREFIX`.
        attempts: At a request, before it is an error: few for who asks again soon; None: for five minutes at most.

    Raises:
        ConfigError: It is none of these.
    """
    if root.startswith(_S3):
        from steerlm_core.store.s3 import S3Objects

        return RunStore(S3Objects(root, attempts))
    return RunStore(LocalObjects(_folder(root)))


def absolute_root(root: str) -> str:
    """Return the one form of a root that documents name it by: readable from every folder, without a slash at its end.

    Args:
        root: As for `open_store`.
    """
    if root.startswith(_S3):
        from steerlm_core.store.s3 import plain_root

        return plain_root(root)
    return os.path.abspath(_folder(root))


def _folder(root: str) -> str:
    """The directory of a root on this machine."""
    if root.startswith("file://"):
        return unquote(urlsplit(root).path)
    if "://" in root:
        raise ConfigError(f"'{root}' is no run root: expected a directory, file:///DIRECTORY or s3://BUCKET/PREFIX.")
    return root
