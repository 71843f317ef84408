"""Events in a run store: appended to a file on a disk, written as growing objects into a bucket."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from steerlm_core import layout
from steerlm_core.errors import StoreError
from steerlm_core.observe.event_file import EventFile, event_line, event_lines
from steerlm_core.observe.events import EventSink
from steerlm_core.periodic import AfterChanges
from steerlm_core.store.run_store import RunStore

_SECONDS = 5.0  # between two writes of an object
_BYTES = 256 << 10  # of an object, before the next is begun


def event_sink(store: RunStore) -> EventSink:
    """Return where this process writes its events."""
    folder = store.path(layout.EVENTS)
    return EventFile(folder, "local") if folder else EventObjects(store, socket.gethostname())


def read_events(store: RunStore) -> list[dict[str, Any]]:
    """Return the events of all writers in the order of their time."""
    texts = [store.read(found.key).decode(errors="replace") for found in store.listing(layout.EVENTS)]
    return sorted((event for text in texts for event in event_lines(text)), key=lambda event: float(event["time"]))


class EventObjects:
    """Writes `events/<writer>-<n>.jsonl`, each again and again until it is full, in a thread of its own.

    A store that cannot be reached costs events at worst: they are kept up to the size of an object, and
    tried again.
    """

    def __init__(self, store: RunStore, writer: str) -> None:
        """Name the writer; nothing is written before the first event."""
        self._store, self._writer, self._number = store, writer, -1
        self._lines: list[str] = []
        self._size = 0
        self._lock = threading.Lock()
        self._writes = AfterChanges(self._write, _SECONDS, "events")

    @property
    def place(self) -> str:
        """The folder of all objects."""
        return self._store.url(layout.EVENTS)

    def append(self, event: Mapping[str, Any], urgent: bool) -> None:
        """Add an event; it is in the bucket some seconds later."""
        line = event_line(event)
        with self._lock:
            self._lines.append(line)
            self._size += len(line)
        self._writes.changed()

    def close(self) -> None:
        """Write the rest."""
        self._writes.close()

    def _write(self) -> None:
        with self._lock:
            lines = list(self._lines)
        data = "".join(lines).encode()
        try:
            if self._number < 0:
                self._number = self._free_number()
            self._store.put(self._key(self._number), data)
        except StoreError:
            self._drop(len(lines), only_above=2 * _BYTES)
            return
        if self._drop(len(lines), only_above=_BYTES):
            self._number = -1

    def _drop(self, lines: int, only_above: int) -> bool:
        with self._lock:
            if self._size <= only_above:
                return False
            self._size -= sum(len(line) for line in self._lines[:lines])
            del self._lines[:lines]
            return True

    def _free_number(self) -> int:
        number = 0
        mine = f"{uuid.uuid4().hex}\n".encode()  # no two writers create the same
        while not self._store.create(self._key(number), mine):
            number += 1
        return number

    def _key(self, number: int) -> str:
        return layout.events(self._writer, number)
