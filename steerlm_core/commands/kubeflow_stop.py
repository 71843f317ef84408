"""`steerlm kubeflow stop`: ending a run, and waiting until it and its training job are gone."""

from __future__ import annotations

from typing import Annotated

import typer

from steerlm_core.commands.kubeflow_options import CA, Host, Namespace, TokenFile, address
from steerlm_core.commands.run import INTERRUPTED


def stop(
    run: Annotated[str, typer.Argument(help="Id of the run.", show_default=False)],
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: CA = None,
) -> None:
    """Terminate a run, and wait until its training job is gone; another run on its root goes on where it ended."""
    from steerlm_core.kubeflow.client import connect
    from steerlm_core.kubeflow.stop import stop as end

    with connect(address(host, namespace, token_file, ca)) as kubeflow:
        try:
            for words in end(kubeflow, run):
                typer.echo(words)
        except KeyboardInterrupt:
            typer.echo("Interrupted. What was asked of Kubeflow stands; the run ends by itself.", err=True)
            raise typer.Exit(INTERRUPTED) from None
