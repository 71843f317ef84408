"""A bucket behind a bad network: nothing is lost, nothing is wrong, and what cannot be done ends in time."""

from __future__ import annotations

import copy
import random
import uuid
from pathlib import Path
from typing import Any

import botocore.retryhandler
import pyarrow as pa
import pytest

import steerlm_core.store.s3 as s3_module
from steerlm_core.errors import StoreError
from steerlm_core.store import open_store, ranges
from steerlm_core.store.manifest import Manifest
from steerlm_core.store.run_store import RunStore
from tests.crash.operations import CAN_FAIL, OPERATIONS, check_it_gives_up, shorten_waits
from tests.services.fault_proxy import FAULTS, FaultProxy
from tests.services.s3 import BUCKET

_MIB = 1 << 20


def _long_but(*kept: str) -> list[Any]:
    """Every fault; those that are not kept are for `make test-long`."""
    return [fault if fault in kept else pytest.param(fault, marks=pytest.mark.long) for fault in FAULTS]


@pytest.fixture
def store(proxy: FaultProxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """A new run root behind the proxy, with short waits; with a short time-out only where it is to be waited for."""
    shorten_waits(monkeypatch, 1.5 if request.node.name.endswith("[hang]") else 20.0)
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.mark.parametrize("fault", _long_but(*(fault for fault in FAULTS if fault != "hang")))
def test_every_operation_does_its_work_when_one_request_in_five_fails(proxy, store, fault):
    proxy.do(fault, 0.2)
    for number in range(_rounds(fault)):
        key = f"object-{number}"
        assert store.create(key, b"mine")
        assert not store.create(key, b"another's")
        data, version = store.read_versioned(key)
        assert data == b"mine"
        assert store.swap(key, b"next", version)
        assert not store.swap(key, b"late", version)
        assert store.read_versioned(f"no {key}") is None
        assert not store.exists(f"no {key}")
        table = pa.table({"x": list(range(1000))})
        assert store.read_table(store.write_table("table", number, table, "train")).equals(table)
        store.put(key, b"last")
        assert store.read(key) == b"last"
    names = {f"object-{number}" for number in range(_rounds(fault))}
    assert {found.key for found in store.listing("object-")} == names
    store.delete(names)
    assert not list(store.listing("object-"))
    assert proxy.done[fault] > 1


@pytest.mark.parametrize("fault", _long_but("cut_answer"))
def test_a_model_of_many_parts_arrives_whole_when_one_request_in_five_fails(proxy, store, fault, tmp_path, monkeypatch):
    small = copy.copy(s3_module._TRANSFER)
    small.multipart_threshold = small.multipart_chunksize = 5 * _MIB
    monkeypatch.setattr(s3_module, "_TRANSFER", small)
    monkeypatch.setattr(ranges, "_RANGE", 3 * _MIB)
    monkeypatch.setattr(ranges, "_AHEAD", 2)  # so that buffers are used again
    source = _folder(tmp_path / "model", config=256, shard_1=17 * _MIB, shard_2=12 * _MIB)
    proxy.do(fault, 0.2)
    for number in range(_rounds(fault)):
        parts = store.write_folder(f"model-{number}", source)
        folder = store.local_folder(Manifest(step="train", run_id="r", input_digest="d", parts=parts))
        assert all((folder / path.name).read_bytes() == path.read_bytes() for path in source.iterdir())
        folder.rename(tmp_path / f"copy-{number}")  # so that the next is downloaded
    assert proxy.done[fault] > 0


def _rounds(fault: str) -> int:
    return 2 if fault == "hang" else 4


def _folder(place: Path, **sizes: int) -> Path:
    place.mkdir()
    for name, size in sizes.items():
        (place / name).write_bytes(random.Random(name).randbytes(size))
    return place


@pytest.mark.parametrize(("fault", "operation"), CAN_FAIL[::8])
def test_an_operation_that_never_succeeds_gives_up_and_names_bucket_key_and_cause(
    proxy, fault, operation, tmp_path, monkeypatch
):
    check_it_gives_up(proxy, fault, operation, tmp_path, monkeypatch)


@pytest.mark.parametrize("operation", ["upload", "download"])
def test_a_transfer_that_fails_names_what_lies_behind(proxy, store, operation, tmp_path, monkeypatch):
    """boto3 hides it: the error of an upload is one of its own."""
    fault, cause = {"upload": ("throttle", "SlowDown"), "download": ("cut_answer", "IncompleteReadError")}[operation]
    store.put("there", b"data")
    (tmp_path / "file").write_bytes(b"data")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.do(fault, 1.0)
    with pytest.raises(StoreError, match=rf"\[{cause}\]"):
        OPERATIONS[operation](open_store(store.root), tmp_path / "file")


def test_a_store_that_was_gone_for_long_is_asked_as_often_as_before(proxy, store, monkeypatch):
    """botocore's standard mode gives up at the first failure, once many have failed."""
    monkeypatch.setattr(botocore.retryhandler, "delay_exponential", lambda *_, **__: 0.0)
    store = open_store(store.root)
    proxy.do("error", 1.0)
    for _ in range(20):
        with pytest.raises(StoreError):
            store.exists("anything")
    proxy.do("error", 0.2)
    assert not any(store.exists("anything") for _ in range(50))
