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
from steerlm_core.errors import ConfigError
from steerlm_core.observe.text import duration

if TYPE_CHECKING:
    from steerlm_core.kubeflow.client import Kubeflow
    from steerlm_core.kubeflow.follow import Step

_FAILED, _INTERRUPTED = 1, 130
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
    from steerlm_core.kubeflow.follow import follow, following, why_it_failed

    try:
        run = follow(kubeflow, run_id, _say)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. The run goes on; follow it again with: {following(run_id)}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if run.state == "SUCCEEDED":
        typer.echo(f"Run {run_id} succeeded.")
        return
    if run.state != "FAILED":
        typer.echo(f"Run {run_id} was {run.state.lower()}.", err=True)
        raise typer.Exit(_FAILED)
    typer.echo(f"error: run {run_id} failed at {why_it_failed(kubeflow, run)}", err=True)
    typer.echo("Retry in the interface goes on at that step, and so does another run on the same root.", err=True)
    raise typer.Exit(_FAILED)


def _say(step: Step) -> None:
    took = "" if step.seconds is None else duration(step.seconds)
    typer.echo(f"{step.title:<32} {step.state.lower():<10} {took}")


def _show_runs(kubeflow: Kubeflow, experiment: str) -> None:
    from steerlm_core.commands.tables import print_table
    from steerlm_core.kubeflow.submit import experiment_id, parameters, recent_runs

    runs = recent_runs(kubeflow, experiment_id(kubeflow, experiment))
    rows = [
        (run.run_id, run.display_name, str(run.state).lower(), _local(run.created_at),
         str(parameters(run).get("root") or parameters(run).get("base_root") or ""))
        for run in runs[:_SHOWN]
    ]  # fmt: skip
    print_table(("run", "name", "state", "started", "root"), rows, f"Experiment {experiment}: {len(runs)} runs")


def _show_run(kubeflow: Kubeflow, run_id: str) -> None:
    from steerlm_core.commands.tables import print_table
    from steerlm_core.kubeflow.follow import get_run, names_of, steps_of, why_it_failed

    run = get_run(kubeflow, run_id)
    steps = steps_of(run, names_of(kubeflow, run))
    rows = [
        (step.part, step.name, step.state.lower(), "" if step.seconds is None else duration(step.seconds))
        for step in steps
    ]
    print_table(("", "step", "state", "took"), rows, f"{run.display_name}: {str(run.state).lower()}")
    typer.echo(kubeflow.link(f"runs/details/{run_id}"))
    if run.state == "FAILED":
        typer.echo(f"It failed at {why_it_failed(kubeflow, run)}")


def _local(when: datetime | None) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M}" if when else ""
