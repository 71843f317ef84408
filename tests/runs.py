"""Runs in this process, at a root by its name: opened or made, and the whole loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from steerlm_core.config import RunConfig
from steerlm_core.observe.events import EventLog
from steerlm_core.run import Run, open_or_create_run
from steerlm_core.runtime import equip, run_loop
from steerlm_core.store import open_store


def run_at(
    root: str | Path,
    config: RunConfig | None = None,
    origin: Mapping[str, Any] | None = None,
    log: EventLog | None = None,
    **given: Any,
) -> Run:
    """Return the run at a root, or a new one of a configuration, ready to do steps; by default nobody hears of them.

    Args:
        root: The root.
        config: The configuration of a new run.
        origin: Where it comes from, under a base root.
        log: Where it says what it does.
        given: Backend and platform file, as `equip` takes them.
    """
    run = open_or_create_run(open_store(str(root)), config, origin)
    return equip(replace(run, log=log) if log else run, **given)


def loop_at(
    root: str | Path, config: RunConfig | None = None, iterations: int | None = None, **given: Any
) -> dict[str, Any]:
    """Run the loop at a root, or go on with it; returns how it ended."""
    return run_loop(run_at(root, config, **given), iterations)
