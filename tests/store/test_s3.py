"""What a bucket refuses, and a server that is not there: said with bucket, key, cause and way out, and no secret."""

from __future__ import annotations

import logging
import socket

import pytest

from steerlm_core.errors import ConfigError, StoreError
from steerlm_core.store import open_store, s3
from steerlm_core.store.probe import probe
from tests.runs import loop_at
from tests.services.s3 import ACCESS_KEY, SECRET_KEY, client_environment


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    yield
    assert SECRET_KEY not in caplog.text


def _said(root: str) -> str:
    with pytest.raises(StoreError) as error:
        open_store(root).read("run.json")
    assert SECRET_KEY not in str(error.value)
    return str(error.value)


def test_a_bucket_that_does_not_exist(bucket):
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/leases/probe-.*\[NoSuchBucket\]. Create the bucket"):
        probe(open_store("s3://no-such-bucket"))


def test_a_wrong_secret(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    said = _said(bucket)
    assert said.startswith(f"{bucket}/run.json: ")
    assert "[SignatureDoesNotMatch]. Correct the credentials (AWS_SECRET_ACCESS_KEY)." in said
    assert "wrong-secret" not in said


def test_an_unknown_key(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "Correct the credentials (AWS_ACCESS_KEY_ID)." in _said(bucket)


def test_no_credentials_at_all(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "Give credentials by the usual AWS chain" in _said(bucket)


@pytest.mark.parametrize(
    ("style", "asked"), [("virtual", "http://models.localhost:1/"), ("", "http://localhost:1/models")]
)
def test_a_bucket_is_addressed_as_the_environment_says(monkeypatch, style, asked):
    for name, value in client_environment("http://localhost:1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STEERLM_S3_ADDRESSING", style)
    with pytest.raises(StoreError) as error:
        open_store("s3://models/run", attempts=1).read("run.json")
    assert asked in str(error.value)


def test_an_addressing_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("STEERLM_S3_ADDRESSING", "host")
    with pytest.raises(ConfigError, match="STEERLM_S3_ADDRESSING: 'host' is none of auto, path, virtual"):
        open_store("s3://models/run")


def test_a_server_that_is_not_there(bucket, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:{SECRET_KEY}@127.0.0.1:{closed.getsockname()[1]}")
        assert "run.json: " in _said(bucket)


def test_a_server_that_never_answers_is_asked_as_often_as_it_may_be_and_no_more(bucket, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(s3, "READ_SECONDS", 0.5)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{mute.getsockname()[1]}")
        said = _said(bucket)
        mute.setblocking(False)
        connections = [mute.accept()[0] for _ in range(2)]
        with pytest.raises(BlockingIOError):
            mute.accept()
    for connection in connections:
        connection.close()
    assert "[ReadTimeoutError]" in said
    assert "`steerlm resume` goes on" in said


def test_a_run_leaves_no_credential_in_the_bucket(toy, bucket):
    loop_at(bucket, toy, 1)
    store = open_store(bucket)
    keys = [found.key for found in store.listing()]
    assert len(keys) > 40
    for key in keys:
        data = store.read(key)
        assert SECRET_KEY.encode() not in data
        assert ACCESS_KEY.encode() not in data
