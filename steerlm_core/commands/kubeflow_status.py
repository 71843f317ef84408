"""`steerlm kubeflow status`: the runs of an experiment, the steps of one run, and following it to its end."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from steerlm_core.commands.kubeflow_options import (
    CA,
    EXPERIMENT,
    Experiment,
    Host,
    Namespace,
    TokenFile,
    address,
)
from steerlm_core.commands.run import INTERRUPTED
from steerlm_core.errors import ConfigError
from steerlm_core.observe.text import printable

if TYPE_CHECKING:
    from steerlm_core.kubeflow.client import Kubeflow
    from steerlm_core.kubeflow.sight import Sight

_FAILED = 1
_SHOWN = 20


def status(
    run: Annotated[str | None, typer.Argument(help="Id of a run.", show_default="the runs of the experiment")] = None,
    experiment: Experiment = EXPERIMENT,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: CA = None,
) -> None:
    """List the runs of an experiment, or the steps of one run."""
    from steerlm_core.kubeflow.client import connect

    if wait and run is None:
        raise ConfigError("--wait: give the id of the run to follow; `steerlm kubeflow status` lists them.")
    with connect(address(host, namespace, token_file, ca)) as kubeflow:
        if run is None:
            _show_runs(kubeflow, experiment)
        elif wait:
            follow_run(kubeflow, run)
        else:
            _show_run(kubeflow, run)


def follow_run(kubeflow: Kubeflow, run_id: str) -> None:
    """Print a line for every step that ends, then how the run did; exits by it."""
    from steerlm_core.kubeflow.follow import follow, following
    from steerlm_core.kubeflow.gone import counts_as_gone

    try:
        sight, gone = follow(kubeflow, run_id, lambda words: typer.echo(printable(words)))
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. The run goes on; follow it again with: {following(run_id)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    for words in sight.unknown:
        typer.echo(words)
    if sight.run.state == "SUCCEEDED":
        typer.echo(f"Run {run_id} succeeded.")
        return
    typer.echo(printable(counts_as_gone(sight.run, gone) if gone else _how_it_ended(kubeflow, sight)), err=True)
    raise typer.Exit(_FAILED)


def _how_it_ended(kubeflow: Kubeflow, sight: Sight) -> str:
    """Return how a run ended that has not succeeded."""
    from steerlm_core.kubeflow.failure import why_it_failed
    from steerlm_core.kubeflow.runs import state_word, was_terminated

    run = sight.run
    if was_terminated(run):
        return f"Run {run.run_id} was terminated. Another run on the same root goes on where it ended."
    if run.state != "FAILED":
        return f"Run {run.run_id} was {state_word(run.state)}."
    return (
        f"Run {run.run_id} failed at {why_it_failed(kubeflow, sight)}\n"
        "Retry in the interface goes on at that step, and so does another run on the same root."
    )


def _show_runs(kubeflow: Kubeflow, experiment: str) -> None:
    from steerlm_core.commands.tables import print_table
    from steerlm_core.kubeflow.runs import experiment_id, how_it_stands, parameters, recent_runs

    runs = recent_runs(kubeflow, experiment_id(kubeflow, experiment))
    rows = [
        (run.run_id, run.display_name, how_it_stands(run), _local(run.created_at),
         str(parameters(run).get("root") or parameters(run).get("base_root") or ""))
        for run in runs[:_SHOWN]
    ]  # fmt: skip
    print_table(("run", "name", "state", "started", "root"), rows, f"Experiment {experiment}: {len(runs)} runs")


def _show_run(kubeflow: Kubeflow, run_id: str) -> None:
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.kubeflow.runs import has_ended, how_it_stands, state_word
    from steerlm_core.kubeflow.sight import Looking
    from steerlm_core.kubeflow.waiting import silence

    sight = Looking(kubeflow, run_id).look()
    run = sight.run
    rows = [(step.part, step.counted, state_word(step.state), step.took) for step in sight.steps]
    print_text(f"{run.display_name}: {how_it_stands(run)}", style="bold")
    print_text(kubeflow.link(f"runs/details/{run_id}"))
    if rows:
        print_table(("", "step", "state", "took"), rows)
    for words in sight.unknown:
        print_text(words)
    if has_ended(run) and run.state != "SUCCEEDED":
        print_text(_how_it_ended(kubeflow, sight))
    elif silence(sight):
        print_text(_why_silent(kubeflow, sight))


def _why_silent(kubeflow: Kubeflow, sight: Sight) -> str:
    from steerlm_core.kubeflow.gone import counts_as_gone, why_gone
    from steerlm_core.kubeflow.waiting import what_it_waits_for

    gone = why_gone(kubeflow, sight.run)
    return counts_as_gone(sight.run, gone) if gone else what_it_waits_for(kubeflow, sight, "its page")


def _local(when: datetime | None) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M}" if when else ""
