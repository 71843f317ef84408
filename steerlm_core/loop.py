"""The loop in one process: the same steps as the pipeline, models loaded once.

prepare ─► [ generate ─► label, score_prior ─► weigh ─► train ─► evaluate ─► decide ]* ─► confirm
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.observe.events import EventLog
from steerlm_core.run_root import create_or_open_run
from steerlm_core.session import Session, with_backend


def run_loop(
    root: str,
    config: RunConfig | None,
    log: EventLog,
    max_iterations: int | None = None,
    backend: str | None = None,
    platform: Path | None = None,
) -> dict[str, Any]:
    """Run, or go on with, the loop at a root until it stops; returns how it ended.

    What is done already is not done again, so this is also how an interrupted run goes on.

    Args:
        root: The run root.
        config: The configuration of a new run; None: go on with the one at the root.
        log: Where the run says what it does.
        max_iterations: Overrides the configuration's.
        backend: Overrides the configuration's `runtime.backend`.
        platform: The platform file of the backend `pytorchjob`.

    Returns:
        The last commit, or the same with kind `max_iterations` when those are used up.
    """
    run = with_backend(create_or_open_run(root, config), backend)
    session = Session(root, run, log, platform)
    session.check_backend()
    limit = max_iterations or (config or run.config).max_iterations
    session.prepare()
    for iteration in range(limit):
        if session.gate(iteration, limit) == "stop":
            break
        for name in layout.ITERATION_STEPS:
            session.step(name, iteration)
    session.confirm()
    return session.outcome(limit)
