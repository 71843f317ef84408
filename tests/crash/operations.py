"""Every operation of a run store, and how it has to end when it cannot succeed."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import botocore.retryhandler
import pytest

import steerlm_core.store.s3 as s3_module
from steerlm_core.errors import StoreError
from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore
from tests.services.fault_proxy import FAULTS, FaultProxy
from tests.services.s3 import BUCKET, SECRET_KEY

ATTEMPTS = 3
HARMFUL = tuple(fault for fault in FAULTS if fault != "delay")
OPERATIONS: dict[str, Callable[[RunStore, Path], object]] = {
    "put": lambda store, _: store.put("there", b"data"),
    "create": lambda store, _: store.create("new", b"data"),
    "swap": lambda store, _: store.swap("there", b"data", "version"),
    "read": lambda store, _: store.read("there"),
    "exists": lambda store, _: store.exists("there"),
    "upload": lambda store, file: store.upload("new", file),
    "download": lambda store, file: store.download("there", file),
    "delete": lambda store, _: store.delete(["there"]),
    "listing": lambda store, _: list(store.listing("there")),
}
_NO_BODY = {
    "cut_request": ("read", "exists", "download", "listing"),
    "cut_answer": ("put", "create", "exists", "upload", "delete"),
}
CAN_FAIL = [
    (fault, operation) for fault in HARMFUL for operation in OPERATIONS if operation not in _NO_BODY.get(fault, ())
]
_READ_SECONDS = 1.0
MOST_REQUESTS = s3_module.ATTEMPTS * ATTEMPTS  # of one that fails: what broke off in a body is begun again


def shorten_waits(monkeypatch: pytest.MonkeyPatch, read_seconds: float) -> None:
    """Give this process's clients time-outs and waits that a test can wait for."""
    monkeypatch.setattr(s3_module, "READ_SECONDS", read_seconds)
    long = botocore.retryhandler.delay_exponential
    monkeypatch.setattr(botocore.retryhandler, "delay_exponential", lambda *given, **named: long(*given, **named) / 20)


def check_it_gives_up(
    proxy: FaultProxy, fault: str, operation: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check an operation while every request fails: it ends, says what and why, and works again afterwards."""
    shorten_waits(monkeypatch, _READ_SECONDS)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", str(ATTEMPTS))
    store = open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    store.put("there", b"data")
    (folder / "file").write_bytes(b"data")
    proxy.do(fault, 1.0)
    before = proxy.requests
    with pytest.raises(StoreError, match=rf"{store.root}/(there|new): .+ \[\w+\]\. .+") as caught:
        OPERATIONS[operation](store, folder / "file")
    assert SECRET_KEY not in str(caught.value)
    assert ATTEMPTS <= proxy.done[fault] <= proxy.requests - before <= MOST_REQUESTS
    proxy.do(None)
    store.put("there", b"data")
    OPERATIONS[operation](store, folder / "file")
