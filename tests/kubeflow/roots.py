"""Run roots in a folder, whose steps say what a test has them say on the day of the recordings."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from steerlm_core.layout import RUN
from steerlm_core.observe.event_file import event_line
from steerlm_core.store import open_store
from steerlm_core.store.sealed import seal


class Root:
    """A run root in a folder, whose steps say what a test has them say."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        open_store(self.place).create(RUN, seal({"run_id": "recorded"}))

    def say(self, at: str, kind: str, step: str, iteration: int | None = None, shard: int | None = None, /, **fields):
        """Add an event at a time of the recorded day."""
        when = datetime.fromisoformat(f"2026-11-27T{at}Z").timestamp()
        event = {"kind": kind, "time": when, "run": "", "iteration": iteration, "step": step, "shard": shard}
        folder = Path(self.place) / "events"
        folder.mkdir(exist_ok=True)
        with (folder / "pod-0.jsonl").open("a") as file:
            file.write(event_line({**event, "fields": fields}))

    def step(self, begin: str, end: str, *what) -> None:
        """Have a step begin and end."""
        self.say(begin, "started", *what)
        self.say(end, "finished", *what, seconds=1.0)


def with_root(run: dict, root: Root | str, **more) -> dict:
    """The recorded run, with another root."""
    place = root if isinstance(root, str) else root.place
    return {"runtime_config": {"parameters": {**run["runtime_config"]["parameters"], "root": place, **more}}}
