"""List and watch: the current set of some objects, kept through expired versions and restarts of the API server.

    LIST ─► the set and its version ─► WATCH from there ─► the set after each change ─► WATCH from the last version …

A watch that ends is taken up at the last version. One that breaks off, or whose version has expired (410), begins with
a new LIST: a watch is silent while nothing changes, so it could not tell that the set is current again.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from steerlm_core.kube.api.client import ClusterError, GoneError, KubeApi, KubeObject, Query

_WATCH_SECONDS = 30
_LATE_SECONDS = 10.0  # a server that does not end the watch itself is gone
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0


@dataclass(frozen=True)
class Snapshot:
    """The set as last seen.

    Attributes:
        items: The objects.
        error: Why it may be out of date; None while it is not.
    """

    items: tuple[KubeObject, ...]
    error: ClusterError | None = None


def snapshots(api: KubeApi, path: str, stop: threading.Event, **selector: str) -> Iterator[Snapshot]:
    """Yield the current set of the objects at `path`, again after every change, until `stop` is set.

    Raises:
        ClusterError: An error that waiting does not mend, such as a missing permission.
    """
    items: dict[str, KubeObject] = {}
    version, pause, worked = "", _FIRST_PAUSE, -math.inf  # a watch last worked; the first LIST counts as one
    while not stop.is_set():
        try:
            if not version:
                listed = api.request("GET", path, query=selector)
                items = {item["metadata"]["uid"]: item for item in listed["items"]}
                version = listed["metadata"]["resourceVersion"]
                worked = worked if math.isfinite(worked) else time.monotonic()
                yield Snapshot(tuple(items.values()))
            started = time.monotonic()
            for kind, item in _changes(api, path, version, selector):
                version, pause, worked = item["metadata"]["resourceVersion"], _FIRST_PAUSE, time.monotonic()
                if kind == "BOOKMARK":
                    continue
                items.pop(item["metadata"]["uid"], None)
                if kind != "DELETED":
                    items[item["metadata"]["uid"]] = item
                yield Snapshot(tuple(items.values()))
            worked = time.monotonic()
            if worked - started > 1.0:
                continue
        except GoneError:
            version = ""
        except ClusterError as error:
            if not error.may_pass(time.monotonic() - worked):
                raise
            version = ""
            yield Snapshot(tuple(items.values()), error)
        stop.wait(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _changes(api: KubeApi, path: str, version: str, selector: dict[str, str]) -> Iterator[tuple[str, KubeObject]]:
    """Yield the kind and the object of every event of one watch."""
    query: Query = {
        "watch": True,
        "allowWatchBookmarks": True,
        "resourceVersion": version,
        "timeoutSeconds": _WATCH_SECONDS,
    }
    for line in api.lines(path, {**query, **selector}, _WATCH_SECONDS + _LATE_SECONDS):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise ClusterError(f"GET {path}: the watch broke off within a line.") from error
        if event["type"] == "ERROR":
            status = event["object"]
            kind = GoneError if status.get("code") == 410 else ClusterError
            raise kind(f"GET {path}: {status.get('message')}", status.get("code", 0))
        yield event["type"], event["object"]


class Informer:
    """A set that a thread of its own keeps current."""

    def __init__(self, api: KubeApi, path: str, changed: Callable[[], None], **selector: str) -> None:
        """Start watching; `changed` is called in that thread after every change."""
        self.latest: Snapshot | None = None
        self.failed: ClusterError | None = None
        self._stop, self._changed = threading.Event(), changed
        self._from = snapshots(api, path, self._stop, **selector)
        threading.Thread(target=self._follow, name=f"watch {path.rsplit('/', 1)[-1]}", daemon=True).start()

    def close(self) -> None:
        """Let the thread end, at its next event."""
        self._stop.set()

    def _follow(self) -> None:
        try:
            for snapshot in self._from:
                self.latest = snapshot
                self._changed()
                if self._stop.is_set():
                    return
        except ClusterError as error:
            self.failed = error
            self._changed()
