"""An API server of a few answers, or of a few objects, on this machine, and the kubeconfig that leads to it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

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


@dataclass
class Cluster:
    """Objects of a cluster, listed as the API server lists them: by labels, and by fields.

    Attributes:
        objects: Lists by their path; others do not exist.
        forbidden: Paths that this account may not ask.
        calls: Paths that were asked.
    """

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of a listing."""
        self.calls.append(path)
        if path in self.forbidden:
            return 403, {"message": f"cannot list resource at {path}"}
        if path not in self.objects:
            return 404, {"message": "the server could not find the requested resource"}
        found = [each for each in self.objects[path] if _selected(each, query)]
        return 200, {"items": found}

    @property
    def handler(self) -> type[BaseHTTPRequestHandler]:
        """What `kube_api` serves."""
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                where = urlsplit(self.path)
                status, body = cluster.answer(where.path, {key: one for key, (one,) in parse_qs(where.query).items()})
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, form: str, *words: object) -> None:
                pass

        return Handler


def _selected(thing: dict[str, Any], query: dict[str, str]) -> bool:
    if wanted := query.get("labelSelector"):
        key, values = re.fullmatch(r"(\S+) in \((.*)\)", wanted).groups()
        if thing["metadata"].get("labels", {}).get(key) not in values.split(","):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = term.partition("=")
        found: Any = thing
        for part in name.split("."):
            found = found[part]
        if found != value:
            return False
    return True
