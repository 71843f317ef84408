"""`steerlm retrain`, `promote`, `rollback` and `history`: runs that follow each other under a base root."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Annotated

import typer

from steerlm_core.commands.render import PlatformFile
from steerlm_core.commands.run import DisplayMode, Limit, Shown, Trained

BaseRoot = Annotated[
    str, typer.Argument(help="Where the runs lie: a directory, or s3://BUCKET/PREFIX.", show_default=False)
]


def retrain(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.", show_default=False)],
    base_root: BaseRoot,
    max_iterations: Limit = None,
    backend: Trained = None,
    platform: PlatformFile = None,
    display: Shown = DisplayMode.AUTO,
) -> None:
    """Run the loop if there is anything new, from the promoted model, and promote the result if it is better."""
    from steerlm_core.begin import begin
    from steerlm_core.commands.run import Options, Runner, work
    from steerlm_core.config import load_config
    from steerlm_core.retrain.running import open_base, released_on_failure
    from steerlm_core.runtime import finish

    given = load_config(config)
    limit = max_iterations or given.max_iterations  # also of an unfinished run that began with another
    job = f"{time.strftime('%Y%m%d-%H%M%S')}-{socket.gethostname()}-{os.getpid()}"
    begun = begin("", base_root, given.model_dump(mode="json"), "", job, limit, here=True)
    if begun is None:
        return
    with released_on_failure(open_base(base_root), job):
        run = work(begun.store, None, Runner.LOCAL, Options(limit, backend, platform, display))
        typer.echo(finish(run, limit)["words"])


def promote(
    root: Annotated[str, typer.Argument(help="A run.", show_default=False)],
    base_root: Annotated[
        str | None, typer.Option(help="Where it is promoted.", show_default="the run's own base root")
    ] = None,
) -> None:
    """Put the best model of a run into use, whatever it was compared with."""
    from steerlm_core import layout
    from steerlm_core.errors import ConfigError
    from steerlm_core.retrain import promotion
    from steerlm_core.run import base_of
    from steerlm_core.store import open_store

    run = open_store(root)
    base = open_store(base_root) if base_root else base_of(run.document(layout.RUN))
    if base is None:
        raise ConfigError(f"{root}: stands under no base root. Name one: steerlm promote {root} --base-root …")
    entry = promotion.promote(base, run, "Promoted by hand.")
    typer.echo(f"In use: {_words(entry)}")


def rollback(base_root: BaseRoot) -> None:
    """Put the model that was in use before the present one into use again."""
    from steerlm_core.retrain import promotion
    from steerlm_core.store import open_store

    typer.echo(f"In use: {_words(promotion.rollback(open_store(base_root)))}")


def history(base_root: BaseRoot) -> None:
    """Show which models were in use, since when, and why; and which one is."""
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.observe.text import interval
    from steerlm_core.retrain import promotion
    from steerlm_core.store import open_store

    base = open_store(base_root)
    rows = [
        (str(each["since"]), str(each["run_id"]), str(each["iteration"]), interval(each["distance"]), str(each["why"]))
        for each in promotion.history(base)
    ]
    if rows:
        print_table(("since", "run", "iteration", "fresh distance", "why"), rows)
    present = promotion.promoted(base)
    print_text(f"In use: {_words(present)}" if present else f"Nothing is promoted under {base_root} yet.")


def _words(entry: dict[str, object]) -> str:
    return f"{entry['model']} (run '{entry['run_id']}', iteration {entry['iteration']})"
