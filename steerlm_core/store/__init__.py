"""Where a run lies: `open_store` is the one way in."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from steerlm_core.errors import ConfigError
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.run_store import RunStore


def open_store(root: str, attempts: int | None = None) -> RunStore:
    """Open a run root; nothing is read or written yet.

    Args:
        root: A directory, `file:///DIRECTORY`, or `s3://BUCKET/PREFIX`.
        attempts: At a request, before it is an error: few for who asks again soon; None: for five minutes at most.

    Raises:
        ConfigError: It is none of these.
    """
    scheme = root.partition("://")[0] if "://" in root else ""
    if scheme == "s3":
        from steerlm_core.store.s3 import S3Objects

        return RunStore(S3Objects(root, attempts))
    if scheme == "file":
        return RunStore(LocalObjects(unquote(urlsplit(root).path)))
    if scheme:
        raise ConfigError(f"'{root}' is no run root: expected a directory, file:///DIRECTORY or s3://BUCKET/PREFIX.")
    return RunStore(LocalObjects(root))


def absolute_root(root: str) -> str:
    """Return the one form of a root that documents name it by: readable from every folder, without a slash at its end.

    Args:
        root: As for `open_store`.
    """
    store = open_store(root)
    return os.path.abspath(store.root) if store.path("") is not None else store.root
