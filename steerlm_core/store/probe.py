"""Whether a store can be trusted with a run, asked before the run begins."""

from __future__ import annotations

import uuid

from steerlm_core import layout
from steerlm_core.errors import StoreError
from steerlm_core.store.run_store import RunStore

_NO_CONDITION = (
    "{}: this store ignores '{}'. Runs rely on conditional puts to have one winner: use a server that honours them "
    "(AWS S3, SeaweedFS from 4.0, MinIO, Ceph from 19)."
)


def probe(store: RunStore) -> None:
    """Find out whether the store honours conditional puts, on which everything else rests.

    Raises:
        StoreError: It does not, or cannot be written to.
    """
    key, versions = layout.probe(uuid.uuid4().hex), []
    try:
        for data, expected in ((b"1", True), (b"2", False)):
            if store.create(key, data) != expected:
                raise StoreError(_NO_CONDITION.format(store.root, "If-None-Match: *"))
            versions.append(store.read_versioned(key))
        (_, first) = versions[0] or (b"", "")
        if not store.swap(key, b"3", first) or store.swap(key, b"4", first):
            raise StoreError(_NO_CONDITION.format(store.root, "If-Match"))
    finally:
        store.delete([key])
