"""Calls to an API server that answers badly, late or not at all: one on this machine, over a real connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from steerlm_core.kube.api.client import ClusterError, ForbiddenError, GoneError, KubeApi, connect, patiently
from tests.services.kube_api import kube_api

heard = threading.Event()  # that the client has given up


class Handler(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "silent":
            heard.wait()
            return
        if kind == "lines":
            self._begin(200)
            self.wfile.write(b"one\ntwo\nhalf")
            return
        self._begin(int(rest) if kind == "status" else 200)
        self.wfile.write(json.dumps({"message": "what the server says"}).encode())

    def log_message(self, form: str, *words: object) -> None:
        pass

    def _begin(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeApi]:
    with kube_api(Handler, "mine", tmp_path, monkeypatch):
        yield connect()


def test_the_namespace_is_that_of_the_context_unless_given(api: KubeApi) -> None:
    assert api.namespace == "mine"
    assert connect("other").namespace == "other"


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [(403, ForbiddenError, False), (410, GoneError, False), (404, ClusterError, False), (409, ClusterError, False),
     (429, ClusterError, True), (500, ClusterError, True), (503, ClusterError, True)],
)  # fmt: skip
def test_a_refusal_says_what_the_server_says(
    api: KubeApi, status: int, kind: type[ClusterError], transient: bool
) -> None:
    with pytest.raises(kind, match=rf"^GET /status/{status}: what the server says \(HTTP {status}\)\.$") as error:
        api.request("GET", f"/status/{status}")
    assert (error.value.status, error.value.transient) == (status, transient)


def test_what_is_not_there_is_none(api: KubeApi) -> None:
    assert api.get("/status/404") is None


def test_a_server_that_does_not_answer_is_given_up(api: KubeApi) -> None:
    heard.clear()
    try:
        with pytest.raises(ClusterError, match="no answer") as error:
            api.request("GET", "/silent", read_seconds=0.2)
    finally:
        heard.set()
    assert error.value.transient


def test_lines_come_one_by_one_also_the_last_half(api: KubeApi) -> None:
    assert list(api.lines("/lines", {}, 5.0)) == [b"one", b"two", b"half"]


def test_a_call_is_repeated_while_that_may_help() -> None:
    calls = 0

    def call() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ClusterError("refused")
        return "answer"

    assert patiently(call, 60.0) == "answer"
    assert calls == 3


@pytest.mark.parametrize(("status", "seconds"), [(409, 60.0), (500, 0.0)])
def test_a_call_is_not_repeated_where_it_cannot_help_or_for_ever(status: int, seconds: float) -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        raise ClusterError("no", status)

    with pytest.raises(ClusterError):
        patiently(call, seconds)
    assert calls == 1


def test_no_way_into_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nothing"))
    with pytest.raises(ClusterError, match="Set KUBECONFIG"):
        connect()
