"""`steerlm compile`: the pipeline for one cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from steerlm_core.commands.render import PlatformFile


def compile_pipeline(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path("pipeline.yaml"),
    platform: PlatformFile = None,
    max_iterations: Annotated[
        int | None, typer.Option(min=1, help="Room for so many iterations.", show_default="8")
    ] = None,
) -> None:
    """Write the Kubeflow pipeline with the images, resources and secrets of a platform, ready to be uploaded."""
    from steerlm_core.kubeflow.platform import write_pipeline
    from steerlm_core.platform import load_platform

    write_pipeline(output, load_platform(platform) if platform else None, max_iterations)
    typer.echo(f"Wrote {output}, {output.stat().st_size / 1000:.0f} kB.")
