"""The event log of a run with everything that reads it: the run's own file, a display, metrics, trackers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from steerlm_core.config import RunConfig
from steerlm_core.observe.display import Display
from steerlm_core.observe.event_store import event_sink
from steerlm_core.observe.events import EventLog
from steerlm_core.observe.exposition import metric_listeners
from steerlm_core.observe.trackers import make_trackers
from steerlm_core.store.run_store import RunStore


@contextmanager
def watched(store: RunStore, run_id: str, config: RunConfig, display: Display) -> Iterator[EventLog]:
    """Hand out the event log of a run; what was said is written when this ends.

    Args:
        store: The run's store.
        run_id: Its id.
        config: Its configuration.
        display: Shows what happens; it has been entered.

    Raises:
        ConfigError: A tracker's package is missing, or the metrics' port cannot be served.
    """
    with ExitStack() as stack:
        trackers = [stack.enter_context(tracker) for tracker in make_trackers(config, run_id)]
        log = EventLog(run_id, event_sink(store), [display, *metric_listeners(config.name), *trackers])
        stack.callback(log.close)
        yield log
