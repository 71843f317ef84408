"""What a pod knows of the run that it trains for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from steerlm_core.config import parse_config
from steerlm_core.observe.event_store import event_sink
from steerlm_core.observe.events import EventLog, StepEvents
from steerlm_core.observe.exposition import metric_listeners
from steerlm_core.run import Run
from steerlm_core.steps.context import StepContext


@contextmanager
def pod_context(run: Run, iteration: int, how: Mapping[str, Any], leads: bool) -> Iterator[StepContext]:
    """Hand out the context of an iteration, for a launcher that holds the lease of the step.

    Args:
        run: The run.
        iteration: The iteration.
        how: Settings of `train` that say how the work is done, over those of the run.
        leads: Whether this node sees the steps, so that its metrics tell whether training moves.
    """
    settings = run.config.model_dump(mode="json")
    config = parse_config({**settings, "train": {**settings["train"], **how}}, "--how")
    log = EventLog(run.run_id, event_sink(run.store), metric_listeners(config.name))
    try:
        with _course(log, iteration, leads) as events:
            yield replace(run, config=config, log=log).context(events, iteration)
    finally:
        log.close()


def _course(log: EventLog, iteration: int, leads: bool) -> AbstractContextManager[StepEvents]:
    """Tell the metrics of start, progress and end; in the run's events the launcher says them, over all attempts."""
    if leads:
        return log.step("train", iteration, course_written=False)
    return nullcontext(StepEvents(log, "train", iteration, None))
