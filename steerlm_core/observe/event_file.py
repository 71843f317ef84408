"""JSON lines of a run's events on a local disk: an append-only file a writer, and what a line is."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steerlm_core import layout

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

    @property
    def place(self) -> str:
        """Its folder."""
        return str(self.directory)

    def append(self, event: Mapping[str, Any], urgent: bool) -> None:
        """Add a line; it reaches the disk at once when urgent, else within about a second of further events.

        Raises:
            OSError: The disk is full, or not to be written to.
        """
        self._buffer.append(event_line(event))
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
            path = self.directory / layout.events_file(self._writer, number)
            try:
                return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                number += 1


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event as a line of JSON."""
    return json.dumps(_plain(event), default=_number) + "\n"


def event_lines(text: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a text; torn lines of a killed writer are left out."""
    for line in text.splitlines():
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
