"""What watching costs: the events of a real run, replayed into the event log with all its readers.

    python -m benchmarks.display RUN

Replays every event that the run wrote (and as many progress calls as a fast step makes) as fast as the log takes them,
with the live display, the event file and the metrics. The processor time of that, of all threads, is compared with the
time that the run itself took.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

from steerlm_core.observe.display import RichDisplay
from steerlm_core.observe.event_file import EventFile
from steerlm_core.observe.events import EventLog
from steerlm_core.observe.metrics import Metrics
from steerlm_core.report.run_view import RunView
from steerlm_core.run import open_run

_CALLS_A_SECOND = 1000  # of `progress`, far more than any step makes


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def main() -> None:
    """Measure, and print one line for each part."""
    parser = argparse.ArgumentParser(description="What watching a run costs.")
    parser.add_argument("run", help="a finished run")
    view = RunView(open_run(parser.parse_args().run))
    os.environ.setdefault("TERM", "xterm-256color")
    took = sum(view.seconds.values())
    log = _log_cost(view, took)
    picture = _picture_cost() * took / RichDisplay.period
    print(f"the run's steps took {took:.1f} s and said {len(view.events)} things")
    print(f"events, file, metrics, progress calls: {log:.3f} s, {log / took:.3%}")
    print(f"live picture, {1 / RichDisplay.period:g} a second:     {picture:.3f} s, {picture / took:.3%}")
    print(f"in all:                               {log + picture:.3f} s, {(log + picture) / took:.3%}")


def _log_cost(view: RunView, seconds: float) -> float:
    """Processor seconds for everything that is said in a run of so many seconds."""
    with tempfile.TemporaryDirectory(prefix="steerlm-") as folder:
        display = RichDisplay(Terminal())
        log = EventLog(view.run_id, EventFile(Path(folder), "benchmark"), [display, Metrics()])
        start = time.process_time()
        for event in view.events:
            fields = dict(event["fields"])
            log.emit(log.event(event["kind"], str(event["step"]), event["iteration"], event["shard"], fields))
            display.take(display._queue.popleft())
        with log.step("train", 99) as says:
            calls = int(seconds * _CALLS_A_SECOND)
            for done in range(calls):
                says.progress(done, calls, "steps")
        log.close()
        return time.process_time() - start


def _picture_cost() -> float:
    """Processor seconds of drawing the live picture once."""
    display = RichDisplay(Terminal())
    log = EventLog("benchmark", None, [display])
    with log.step("train", 1) as says:
        says.progress(10, 100, "steps")
        display._drain()
        display.open()
        display.tick()
        start, times = time.process_time(), 200
        for _ in range(times):
            display.tick()
        spent = (time.process_time() - start) / times
        display.close()
    return spent


if __name__ == "__main__":
    main()
