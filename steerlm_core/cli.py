"""The command line. Mistakes are explained without a traceback and end with code 2; an interrupt with 130."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import typer

from steerlm_core.commands import kubeflow
from steerlm_core.commands.compile import compile_pipeline
from steerlm_core.commands.configure import init, validate
from steerlm_core.commands.doctor import doctor
from steerlm_core.commands.generate import generate
from steerlm_core.commands.inspect import inspect
from steerlm_core.commands.maintenance import copy, gc, verify
from steerlm_core.commands.render import render
from steerlm_core.commands.results import export, report
from steerlm_core.commands.retrain import history, promote, retrain, rollback
from steerlm_core.commands.run import resume, run, step
from steerlm_core.commands.status import status
from steerlm_core.errors import SteerLMError

MISTAKE = 2

app = typer.Typer(
    name="steerlm",
    help="Steer a language model by attributes, iteratively (SteerLM v2). Start with: steerlm init",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (init, validate, doctor),
    "Run": (run, resume, step),
    "Look": (status, inspect, report, render),
    "Use": (generate, export),
    "Look after": (verify, gc, copy),
    "Again and again": (retrain, promote, rollback, history),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.command("compile", rich_help_panel="On Kubeflow")(compile_pipeline)
app.add_typer(kubeflow.app, name="kubeflow", rich_help_panel="On Kubeflow")


def main() -> int:
    """Run the command line; returns the exit code of a mistake, and exits by itself otherwise."""
    _hush_libraries()
    try:
        app()
    except SteerLMError as error:
        print(f"error: {error}", file=sys.stderr)
    return MISTAKE


def _hush_libraries() -> None:
    """Keep libraries from writing into a display; must come before anything imports them."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # It sets its own level when it is imported, and warns of every machine without a GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno > logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
