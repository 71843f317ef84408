"""`steerlm run`, `resume` and `step`: the loop on this machine, with a display while it works."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlm_core import layout
from steerlm_core.commands.render import PlatformFile
from steerlm_core.config import RunConfig, load_config, parse_config
from steerlm_core.errors import ConfigError
from steerlm_core.platform import FILE as PLATFORM_FILE

if TYPE_CHECKING:
    from steerlm_core.run import Run
    from steerlm_core.store.run_store import RunStore

INTERRUPTED = 130


class DisplayMode(StrEnum):
    """How a run shows what it does."""

    AUTO = "auto"
    RICH = "rich"
    PLAIN = "plain"
    LOG = "log"
    QUIET = "quiet"


class Runner(StrEnum):
    """What runs the steps."""

    LOCAL = "local"
    KFP_LOCAL = "kfp-local"


class Backend(StrEnum):
    """Where training happens."""

    LOCAL = "local"
    TORCHRUN = "torchrun"
    PYTORCHJOB = "pytorchjob"


Root = Annotated[str, typer.Argument(help="The run directory.", show_default=False)]
Shown = Annotated[DisplayMode, typer.Option(help="auto: rich on a terminal, log in a pod, plain elsewhere.")]
Trained = Annotated[
    Backend | None,
    typer.Option(
        "--backend",
        help="Where training happens: in this process, in processes of this machine, in a Kubernetes cluster.",
        show_default="runtime.backend",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Most iterations; overrides the configuration.")]


def run(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.", show_default=False)],
    root: Annotated[
        str | None, typer.Option(help="Run directory.", show_default=layout.run_below("NAME-DATE-TIME"))
    ] = None,
    runner: Annotated[
        Runner, typer.Option(help="local: this process; kfp-local: the Kubeflow pipeline, a process a step.")
    ] = Runner.LOCAL,
    seed: Annotated[int | None, typer.Option(min=0, help="Overrides the configuration.")] = None,
    max_iterations: Limit = None,
    backend: Trained = None,
    platform: PlatformFile = None,
    display: Shown = DisplayMode.AUTO,
) -> None:
    """Run the loop until it stops by itself, and say why it did."""
    from steerlm_core.store import open_store

    options = Options(max_iterations, backend, platform, display)
    if runner is Runner.KFP_LOCAL:
        _refuse_unheard(options)
    given = _override(load_config(config), str(config), seed=seed, max_iterations=max_iterations)
    where = root or layout.run_below(f"{given.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    work(open_store(where), given, runner, options)


def resume(
    root: Root,
    max_iterations: Limit = None,
    backend: Trained = None,
    platform: PlatformFile = None,
    display: Shown = DisplayMode.AUTO,
) -> None:
    """Go on with a run that was interrupted, or that may have more iterations."""
    from steerlm_core.store import open_store

    work(open_store(root), None, Runner.LOCAL, Options(max_iterations, backend, platform, display))


def step(
    name: Annotated[str, typer.Argument(help="A step of an iteration: generate, label, …", show_default=False)],
    root: Annotated[str, typer.Option(help="The run directory.", show_default=False)],
    iteration: Annotated[int, typer.Option(min=0, help="The iteration.", show_default=False)],
    backend: Trained = None,
    platform: PlatformFile = None,
) -> None:
    """Run one step of an iteration, and print its numbers as JSON; what it says meanwhile goes to standard error."""
    from steerlm_core.runtime import opened, run_step

    if "KUBERNETES_SERVICE_HOST" not in os.environ:  # in a pod the structured log has it all
        logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
        logging.getLogger("steerlm").setLevel(logging.INFO)
    with opened(root, backend and backend.value, platform) as run:
        numbers = run_step(run, name, iteration)
    typer.echo(json.dumps(numbers, indent=1, default=float))


@dataclass(frozen=True)
class Options:
    """What a run and a resumed run have in common."""

    max_iterations: int | None
    backend: Backend | None
    platform: Path | None
    display: DisplayMode


def _refuse_unheard(options: Options) -> None:
    """Refuse what the pipeline's steps, in processes of their own, would not hear of; $STEERLM_PLATFORM they do.

    Raises:
        ConfigError: Such an option was given.
    """
    platform = None if options.platform == Path(os.environ.get(PLATFORM_FILE, "")) else options.platform
    display = None if options.display is DisplayMode.AUTO else options.display
    for option, value, instead in (
        ("--backend", options.backend, "set runtime.backend in the configuration"),
        ("--platform", platform, f"name the file in {PLATFORM_FILE}"),
        ("--display", display, "leave it out"),
    ):
        if value is not None:
            raise ConfigError(f"{option} {value}: --runner kfp-local does not pass it on to its steps; {instead}.")


def _override(config: RunConfig, where: str, **values: int | None) -> RunConfig:
    """Put options of the command line over the configuration."""
    given = {key: value for key, value in values.items() if value is not None}
    return parse_config({**config.model_dump(mode="json"), **given}, where)


def work(store: RunStore, config: RunConfig | None, runner: Runner, options: Options) -> Run:
    """Run or resume, then print the summary; an interrupt says how to go on."""
    from steerlm_core.commands.summary import print_summary

    start = time.monotonic()
    with _resumable(store):
        if config is not None and runner is Runner.KFP_LOCAL:
            from steerlm_core.kubeflow.local_runner import run_under_kfp_local

            run, outcome = run_under_kfp_local(store, config), None
        else:
            run, outcome = _run_here(store, config, options)
    print_summary(run, outcome, time.monotonic() - start)
    return run


@contextmanager
def _resumable(store: RunStore) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if store.exists(layout.RUN):
            typer.echo(f"Interrupted. What is finished is kept; go on with: steerlm resume {store.root}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _run_here(store: RunStore, config: RunConfig | None, options: Options) -> tuple[Run, dict[str, Any]]:
    """Run the loop in this process, under a display; returns how it ended."""
    from steerlm_core.observe.display_mode import make_display
    from steerlm_core.observe.events import EventLog
    from steerlm_core.run import open_or_create_run
    from steerlm_core.runtime import at_work, run_loop

    with make_display(options.display.value) as display:
        # There is no run yet whose events could tell it.
        with EventLog(config.name, None, [display]).step("begin") if config else nullcontext():
            run = open_or_create_run(store, config)
        with at_work(run, display, options.backend and options.backend.value, options.platform) as working:
            return working, run_loop(working, options.max_iterations)
