"""`steerlm report` and `steerlm export`: a run and its model to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlm_core.commands.run import Root
from steerlm_core.errors import ConfigError, RunStateError


def report(
    roots: Annotated[list[str], typer.Argument(metavar="RUN...", help="One run, or several to compare.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where to write it; a name that ends in .md gets a Markdown summary.", show_default="RUN/report.html"
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write the report of a run, or a comparison of several: one HTML file without any network."""
    path = output or _default_path(roots)
    if path.suffix == ".md":
        _write_markdown(roots, path)
    else:
        from steerlm_core.report.html import write_html
        from steerlm_core.run import open_run

        write_html([open_run(root) for root in roots], path)
    typer.echo(f"Wrote {path}.")
    if open_:
        typer.launch(path.resolve().as_uri())


def _default_path(roots: list[str]) -> Path:
    """Beside the run where it is on this machine, else here."""
    if len(roots) > 1:
        return Path("comparison.html")
    return Path("report.html") if "://" in roots[0] else Path(roots[0]) / "report.html"


def _write_markdown(roots: list[str], path: Path) -> None:
    from steerlm_core.report.markdown import write_markdown
    from steerlm_core.run import open_run

    if len(roots) > 1:
        raise ConfigError(f"--output {path}: a Markdown summary is of one run; several are compared in HTML.")
    write_markdown(open_run(roots[0]), path)


def export(
    root: Root,
    directory: Annotated[Path, typer.Argument(help="A new directory.", show_default=False)],
) -> None:
    """Copy the best model as a plain Hugging Face folder, with a card that says how to prompt it."""
    from shutil import copytree

    from steerlm_core.report.card import model_card
    from steerlm_core.report.run_view import RunView
    from steerlm_core.run import open_run

    if directory.exists():
        raise RunStateError(f"{directory}: exists already, and is left as it is. Give a new directory.")
    view = RunView(open_run(root))
    copytree(view.policy_folder(view.best), directory)
    (directory / "card.md").write_text(model_card(view, directory))
    typer.echo(f"Wrote {directory}; card.md says how to prompt the model.")
