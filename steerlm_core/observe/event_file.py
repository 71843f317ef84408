"""JSON lines of a run's events on a local disk: an append-only file a writer, and the reader of all of them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_BUFFER_SECONDS = 1.0


class EventFile:
    """Appends events to `<directory>/<writer>-<n>.jsonl`, where n is the first number that is free."""

    def __init__(self, directory: Path, writer: str) -> None:
        """Name the file; it is created with the first event."""
        self.directory = directory
        self._writer = writer
        self._handle: int | None = None
        self._buffer: list[str] = []
        self._written = 0.0

    def append(self, event: Mapping[str, Any], urgent: bool) -> None:
        """Add a line; it reaches the disk at once when urgent, else within about a second of further events.

        Raises:
            OSError: The disk is full, or not to be written to.
        """
        self._buffer.append(json.dumps(_plain(event), default=_number) + "\n")
        if urgent or time.monotonic() - self._written > _BUFFER_SECONDS:
            self._flush()

    def close(self) -> None:
        """Write the rest, and close the file."""
        if self._buffer:
            self._flush()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _flush(self) -> None:
        if self._handle is None:
            self._handle = self._create()
        data = "".join(self._buffer).encode()
        while data:
            data = data[os.write(self._handle, data) :]
        self._buffer.clear()
        self._written = time.monotonic()

    def _create(self) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            path = self.directory / f"{self._writer}-{number}.jsonl"
            try:
                return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                number += 1


def read_events(directory: Path) -> list[dict[str, Any]]:
    """Return the events of all writers in the order of their time; torn lines of a killed writer are left out."""
    events = [event for path in directory.glob("*.jsonl") for event in _lines(path)]
    return sorted(events, key=lambda event: float(event["time"]))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict) and "time" in event and "kind" in event:
            yield event


def _plain(value: Any) -> Any:
    """Write NaN and infinities as strings, which JSON has no numbers for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: Any) -> Any:
    """Write numbers of other libraries as numbers, and anything else as text."""
    try:
        return _plain(float(value))
    except (TypeError, ValueError):
        return str(value)
