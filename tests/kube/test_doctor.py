"""What doctor finds on a cluster, here an API server of fixed answers over a real connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from steerlm_core.kube.check import Check, State
from steerlm_core.kube.doctor import examine
from steerlm_core.platform_config import PlatformConfig
from tests.services.kube_api import kube_api

KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
QUEUE = f"{KUEUE}/namespaces/team/localqueues/gpus"
ANSWERS: dict[str, Any] = {
    "/version": {"gitVersion": "v1.34.0"},
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": {"status": {"userInfo": {"username": "u"}}},
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"status": {"allowed": True}},
    "/api/v1/namespaces/team": {"metadata": {}},
}


class Handler(BaseHTTPRequestHandler):
    """Answers what `there` has, else 404."""

    there: dict[str, Any]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = self.there.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(found or {"message": "not found"}).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, form: str, *words: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the server has, by path."""
    monkeypatch.setattr(Handler, "there", dict(ANSWERS), raising=False)
    with kube_api(Handler, "team", tmp_path, monkeypatch):
        yield Handler.there


def kueue() -> Check:
    platform = PlatformConfig.model_validate({"train_job": {"queue": "gpus"}})
    (found,) = (check for check in examine(platform, None) if check.what == "Kueue")
    return found


def test_a_queue_that_is_there(server: dict[str, Any]) -> None:
    server |= {KUEUE: {"kind": "APIResourceList"}, QUEUE: {"kind": "LocalQueue"}}
    assert (kueue().state, kueue().found) == (State.OK, "LocalQueue gpus is there")


def test_a_missing_queue_is_told_from_a_missing_kueue(server: dict[str, Any]) -> None:
    none = kueue()
    assert none.state is State.FAILED
    assert "does not serve kueue.x-k8s.io/v1beta2" in none.found
    server[KUEUE] = {"kind": "APIResourceList"}
    missing = kueue()
    assert missing.state is State.FAILED
    assert "there is no LocalQueue gpus" in missing.found
