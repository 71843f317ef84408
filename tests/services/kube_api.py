"""An API server of a few answers on this machine, and the kubeconfig that leads to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@contextmanager
def kube_api(
    handler: type[BaseHTTPRequestHandler], namespace: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Serve, with the default kubeconfig in `folder` leading there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    (folder / "config").write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "t"}}],
        "clusters": [{"name": "s", "cluster": {"server": address}}],
        "contexts": [{"name": "c", "context": {"cluster": "s", "user": "u", "namespace": namespace}}],
    }))  # fmt: skip
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(folder / "config"))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
