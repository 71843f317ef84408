"""Structured lines for machines and people: logfmt, each with run, iteration, step and shard.

ts=2026-01-01T12:00:00Z level=info run=demo-1234 iteration=1 step=train event=progress done=64 total=192 unit=steps
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from steerlm_core.observe.display import Display
from steerlm_core.observe.events import Event
from steerlm_core.observe.text import printable

_SECONDS_BETWEEN_PROGRESS = 10.0
_PLAIN = re.compile(r"[\w./:+@%-]+")
_LEVELS = {"warning": "warning", "failed": "error"}


class LogDisplay(Display):
    """A line for every event, progress and training steps at most every ten seconds, and our loggers' records."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        super().__init__(stream)
        self._told: dict[tuple[str, str, int | None, int | None], float] = {}
        self._records = _Records(self)
        self._run_id = ""

    def open(self) -> None:
        """Begin to listen to the library's loggers."""
        logger = logging.getLogger("steerlm")
        logger.addHandler(self._records)
        logger.setLevel(logging.INFO)

    def close(self) -> None:
        """Leave the loggers as they were."""
        logging.getLogger("steerlm").removeHandler(self._records)

    def show(self, event: Event) -> None:
        """Write an event."""
        self._run_id = event.run
        if event.kind == "progress" or (event.kind == "metric" and event.step == "train"):
            key = (event.kind, event.step, event.iteration, event.shard)
            if event.time - self._told.get(key, 0.0) < _SECONDS_BETWEEN_PROGRESS:
                return
            self._told[key] = event.time
        self.write(event.time, _LEVELS.get(event.kind, "info"), _fields(event))

    def write(self, when: float, level: str, fields: Mapping[str, Any]) -> None:
        """Write a line."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
        pairs = {"ts": clock, "level": level, "run": self._run_id, **fields}
        print(" ".join(f"{key}={_value(value)}" for key, value in pairs.items()), file=self._stream, flush=True)


class _Records(logging.Handler):
    """Passes the records of our loggers on, with the step at work."""

    def __init__(self, display: LogDisplay) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        steps = list(self._display.steps_at_work())
        where = _where(steps[0].iteration, steps[0].name, steps[0].shard) if len(steps) == 1 else {}
        fields = {**where, "event": "log", "logger": record.name, "message": record.getMessage()}
        self._display.write(record.created, record.levelname.lower(), fields)


def _where(iteration: int | None, step: str, shard: int | None) -> dict[str, Any]:
    found = {"iteration": iteration, "step": step or None, "shard": shard}
    return {key: value for key, value in found.items() if value is not None}


def _fields(event: Event) -> dict[str, Any]:
    fields = {"optimizer_step" if key == "step" else key: value for key, value in _flat(event.fields)}
    return {**_where(event.iteration, event.step, event.shard), "event": event.kind, **fields}


def _flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Plain values, and those of mappings one level down; tables stay in the run."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", each) for inner, each in value.items() if _is_plain(each))
        elif _is_plain(value):
            yield key, value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _value(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(printable(text), ensure_ascii=False)
