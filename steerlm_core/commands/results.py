"""`steerlm report` and `steerlm export`: a run and its model to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlm_core.commands.run import Root
from steerlm_core.errors import RunStateError


def report(
    root: Root,
    output: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="ROOT/report.md")] = None,
) -> None:
    """Write a Markdown report of a run."""
    from steerlm_core.observe.report import write_report

    path = output or Path(root) / "report.md"
    write_report(root, path)
    typer.echo(f"Wrote {path}.")


def export(
    root: Root,
    directory: Annotated[Path, typer.Argument(help="A new directory.", show_default=False)],
) -> None:
    """Copy the best model as a plain Hugging Face folder, with a card that says how to prompt it."""
    from shutil import copytree

    from steerlm_core.observe.card import model_card
    from steerlm_core.observe.run_view import RunView

    if directory.exists():
        raise RunStateError(f"{directory}: exists already, and is left as it is. Give a new directory.")
    view = RunView(root)
    copytree(view.policy_folder(view.best), directory)
    (directory / "card.md").write_text(model_card(view, directory))
    typer.echo(f"Wrote {directory}; card.md says how to prompt the model.")
