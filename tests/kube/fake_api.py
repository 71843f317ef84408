"""An API server of dictionaries, whose next answers a test can spoil."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from steerlm_core.kube.api.client import ClusterError, KubeApi, KubeObject, Query


class FakeApi(KubeApi):
    """Keeps jobs by name; notes every call.

    Attributes:
        jobs: The jobs there are.
        calls: Methods and paths, in order.
        spoiled: Errors for the next calls of a method, in order; None lets one through. A `lost` one acts first.
        streams: Lines, or errors, of the next watches.
    """

    def __init__(self) -> None:
        self.namespace = "ns"
        self.jobs: dict[str, KubeObject] = {}
        self.calls: list[str] = []
        self.spoiled: dict[str, list[ClusterError | None]] = {}
        self.lost: set[int] = set()
        self.streams: list[list[bytes | Exception]] = []
        self.queries: list[dict[str, Any]] = []

    def request(
        self,
        method: str,
        path: str,
        body: KubeObject | None = None,
        query: Query | None = None,
        read_seconds: float = 0,
    ) -> KubeObject:
        self.calls.append(f"{method} {path.rsplit('/', 1)[-1]}")
        error = self.spoiled[method].pop(0) if self.spoiled.get(method) else None
        if error is not None and id(error) not in self.lost:
            raise error
        answer = self._act(method, path, body)
        if error is not None:
            raise error
        return answer

    def lines(self, path: str, query: Query, read_seconds: float) -> Iterator[bytes]:
        self.queries.append(dict(query))
        for line in self.streams.pop(0):
            if isinstance(line, Exception):
                raise line
            yield line

    def lose(self, method: str, error: ClusterError) -> None:
        """Let the next call of a method act, and lose its answer."""
        self.spoiled.setdefault(method, []).append(error)
        self.lost.add(id(error))

    def _act(self, method: str, path: str, body: KubeObject | None) -> KubeObject:
        name = path.rsplit("/", 1)[-1]
        if method == "POST":
            assert body is not None
            name = body["metadata"]["name"]
            if name in self.jobs:
                raise ClusterError(f"{name} already exists", 409)
            metadata = {"uid": f"uid-{len(self.calls)}", "resourceVersion": "1", **body["metadata"]}
            self.jobs[name] = {**body, "metadata": metadata}
        elif name in ("pods", "pytorchjobs"):
            return {
                "items": list(self.jobs.values()) if name == "pytorchjobs" else [],
                "metadata": {"resourceVersion": "7"},
            }
        elif name not in self.jobs:
            raise ClusterError(f"{name} not found", 404)
        elif method == "PATCH":
            assert body is not None
            self.jobs[name]["metadata"] |= body["metadata"]
        elif method == "DELETE":
            return self.jobs.pop(name)
        return self.jobs[name]


def watch_line(kind: str, uid: str = "a", version: str = "8", **more: Any) -> bytes:
    """One event of a watch."""
    return json.dumps({"type": kind, "object": {"metadata": {"uid": uid, "resourceVersion": version}, **more}}).encode()
