"""Where metrics are served and pushed: mistakes are explained, and a gateway never holds up the work."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from steerlm_core.errors import ConfigError
from steerlm_core.observe.events import Event, EventLog
from steerlm_core.observe.exposition import GATEWAY, PORT, Pusher, metric_listeners, serve
from tests.services.processes import free_ports


def test_a_port_that_is_taken_or_none_is_explained(monkeypatch):
    (port,) = free_ports("127.0.0.1", 1)
    with HTTPServer(("0.0.0.0", port), BaseHTTPRequestHandler):
        monkeypatch.setenv(PORT, str(port))
        with pytest.raises(ConfigError, match=f"port {port} cannot be served"):
            metric_listeners("demo")
    with pytest.raises(ConfigError, match="'many' is not a port number"):
        serve("many")
    monkeypatch.delenv(PORT)
    monkeypatch.delenv(GATEWAY, raising=False)
    assert metric_listeners("demo") == []


def _pushed(port: int, *steps: str) -> list[Event]:
    """What is heard of steps whose end is pushed to a gateway on that port; one warning, of the gateway."""
    heard: list[Event] = []
    log = EventLog("run-1", None, [Pusher(f"http://127.0.0.1:{port}", "demo"), heard.append])
    for step in steps:
        with log.step(step, 0):
            pass
    (warning,) = (event.fields["message"] for event in heard if event.kind == "warning")
    assert "Pusher has stopped listening" in warning
    return heard


def test_a_gateway_that_is_gone_is_reported_once_and_the_work_goes_on():
    (port,) = free_ports("127.0.0.1", 1)
    assert _pushed(port, "label", "weigh")[-1].kind == "finished"


def test_a_gateway_that_hangs_is_given_up_and_the_work_goes_on(monkeypatch):
    monkeypatch.setattr("steerlm_core.observe.exposition._PUSH_SECONDS", 0.3)
    release = threading.Event()

    class Hangs(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            release.wait()

    (port,) = free_ports("127.0.0.1", 1)
    with HTTPServer(("127.0.0.1", port), Hangs) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        try:
            assert _pushed(port, "label")[-1].kind == "finished"  # while the gateway hangs
        finally:
            release.set()
