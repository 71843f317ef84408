"""`steerlm init` and `steerlm validate`: a configuration to start from, and what is wrong with one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from steerlm_core.errors import ConfigError


class Example(StrEnum):
    """The examples that `init` writes."""

    DEMO = "demo"
    SMOLLM2 = "smollm2"


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("steerlm.yaml"),
    example: Annotated[
        Example, typer.Option(help="demo: made on this machine, minutes; smollm2: a real model, your prompts.")
    ] = Example.DEMO,
) -> None:
    """Write an example configuration, documented in place."""
    try:
        with path.open("x") as file:
            file.write(example_text(example))
    except FileExistsError as error:
        raise ConfigError(
            f"{path}: exists already, and is left as it is. Give another name: steerlm init NAME."
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}).") from error
    typer.echo(f"Wrote {path}. Next: steerlm validate {path}, then steerlm run {path}")


def example_text(example: Example) -> str:
    """Return an example; from the package where it is installed, from the repository where it is checked out."""
    package = Path(__file__).parents[1]
    folders = [package / "examples", package.parent / "examples"]
    return next(file for folder in folders if (file := folder / f"{example}.yaml").is_file()).read_text()


def validate(config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")]) -> None:
    """Explain what is wrong with a configuration, its prompts and its models; trains nothing."""
    from steerlm_core.config import load_config
    from steerlm_core.run import check_given

    found = load_config(config)
    for line in check_given(found):
        typer.echo(f"warning: skipped {line}", err=True)
    pairs = f"{found.prompts.train} training and {found.prompts.held_out} held-out pairs"
    names = ", ".join(found.attribute_names)
    typer.echo(f"{config}: fine. Attributes {names}; {pairs}; {found.generate.candidates} candidates each.")
    typer.echo(f"Next: steerlm run {config}")
