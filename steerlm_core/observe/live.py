"""A run that is at work, perhaps on another machine: what its events tell, looked at again and again.

Only objects that have changed since the last look are read again.
"""

from __future__ import annotations

import time
from typing import Any

from steerlm_core import layout
from steerlm_core.observe.display import Display
from steerlm_core.observe.event_file import event_lines
from steerlm_core.observe.events import Event
from steerlm_core.store.run_store import RunStore


class LiveEvents:
    """The events of all writers of a run, as they grow."""

    def __init__(self, store: RunStore) -> None:
        """Watch a run's store."""
        self._store = store
        self._read: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        self._told: dict[str, int] = {}

    def new(self) -> list[Event]:
        """Return what was said since the last look, in the order of its time."""
        found: list[dict[str, Any]] = []
        for listed in self._store.listing(layout.EVENTS):
            size, lines = self._read.get(listed.key, (-1, []))
            if listed.size != size:
                lines = list(event_lines(self._store.read(listed.key).decode(errors="replace")))
                self._read[listed.key] = (listed.size, lines)
            found += lines[self._told.get(listed.key, 0) :]
            self._told[listed.key] = len(lines)
        return [_event(line) for line in sorted(found, key=lambda line: float(line["time"]))]


def watch(store: RunStore, display: Display, period: float) -> None:
    """Show a run as it goes on, until it has been confirmed.

    Args:
        store: The run's store.
        display: Where to; it has been entered.
        period: Seconds between two looks.
    """
    events, confirmed = LiveEvents(store), False
    while not confirmed:
        for event in events.new():
            display(event)
            if event.step == "confirm":
                confirmed = event.kind == "finished"
            elif event.kind == "started" and event.iteration is not None:
                confirmed = False  # it was taken up again, with more iterations
        if not confirmed:
            time.sleep(period)


def _event(line: dict[str, Any]) -> Event:
    return Event(
        line["kind"], float(line["time"]), str(line.get("run", "")), line.get("iteration"), str(line.get("step") or ""),
        line.get("shard"), line.get("fields") or {},
    )  # fmt: skip
