"""The master's log, followed over connections that break off."""

from __future__ import annotations

import threading

import pytest

from steerlm_core.kube.api.client import ClusterError
from steerlm_core.kube.launch import logs
from steerlm_core.kube.launch.logs import MasterLog
from tests.kube.fake_api import FakeApi

A, B = b"2026-01-02T03:04:05.678901234Z a", b"2026-01-02T03:04:06.000000000Z b"
KUBELET = b"failed to create fsnotify watcher: too many open files"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    monkeypatch.setattr(logs, "_PAUSE", 0.0)
    return FakeApi()


def followed(api: FakeApi) -> MasterLog:
    """Follow until the pod is gone."""
    api.streams.append([ClusterError("gone", 404)])
    log = MasterLog(api, "master")
    for thread in threading.enumerate():
        if thread.name == "log master":
            thread.join(10)
            assert not thread.is_alive()
    return log


def test_lines_of_the_same_second_come_again_and_are_noted_once(api: FakeApi) -> None:
    api.streams = [[A], [A, B]]
    assert list(followed(api).lines) == ["a", "b"]
    assert [query.get("sinceTime") for query in api.queries] == [None, A.decode().split()[0], B.decode().split()[0]]


def test_a_line_of_the_kubelet_is_no_time_to_go_on_from(api: FakeApi) -> None:
    api.streams = [[A, KUBELET], [KUBELET, B]]
    assert list(followed(api).lines) == ["a", KUBELET.decode(), "b"]
    assert [query.get("sinceTime") for query in api.queries] == [None, A.decode().split()[0], B.decode().split()[0]]
