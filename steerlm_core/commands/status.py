"""`steerlm status`: what of a run is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from steerlm_core import layout
from steerlm_core.commands.run import INTERRUPTED, DisplayMode, Root, Shown

if TYPE_CHECKING:
    from steerlm_core.report.run_view import IterationView, RunView
    from steerlm_core.run import Run

_DISK_SECONDS, _BUCKET_SECONDS = 1.0, 5.0


def status(
    root: Root,
    watch: Annotated[bool, typer.Option(help="Go on showing what happens until the run has ended.")] = False,
    display: Shown = DisplayMode.AUTO,
) -> None:
    """Show what is done, step by step, and how the iterations went."""
    from steerlm_core.run import open_run

    run = open_run(root)
    if watch:
        _watch(run, display)
    _show(run)


def _watch(run: Run, mode: DisplayMode) -> None:
    """Show the run's events as its own process would, wherever it works."""
    from steerlm_core.observe.display_mode import make_display
    from steerlm_core.observe.live import watch

    with make_display(mode.value) as display:
        try:
            watch(run.store, display, _BUCKET_SECONDS if "://" in run.root else _DISK_SECONDS)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _show(run: Run) -> None:
    from steerlm_core.commands.summary import print_confirmation
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.observe.text import size
    from steerlm_core.report.run_view import RunView
    from steerlm_core.report.words import ITERATION_COLUMNS, iteration_rows, reason

    view = RunView(run)
    print_text(f"{view.run_id} in {view.root}, {size(view.bytes_stored)}", style="bold")
    for who in view.at_work:
        print_text(f"at work: {who}")
    print_text(f"prepare: {'done' if view.prepared else 'not finished'}{_time(view, None, 'prepare')}")
    if view.iterations:
        rows = [
            [str(each.number), *(_step(view, each, step) for step in layout.ITERATION_STEPS)]
            for each in view.iterations
        ]
        print_table(("iteration", *layout.ITERATION_STEPS), rows)
    if view.committed:
        print_table(ITERATION_COLUMNS, iteration_rows(view.committed))
    print_text(reason(view))
    if view.confirmation:
        print_confirmation(view.confirmation)
    if view.how_to_go_on:
        print_text(f"Next: {view.how_to_go_on}")


def _step(view: RunView, iteration: IterationView, step: str) -> str:
    return f"done{_time(view, iteration.number, step)}" if step in iteration.steps_done else "–"


def _time(view: RunView, iteration: int | None, step: str) -> str:
    from steerlm_core.observe.text import duration

    seconds = view.seconds.get((iteration, step))
    return "" if seconds is None else f", {duration(seconds)}"
