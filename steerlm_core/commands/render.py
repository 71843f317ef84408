"""`steerlm render`: the PyTorchJob that a training step would create, as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from steerlm_core.config import RunConfig, load_config
from steerlm_core.errors import ConfigError
from steerlm_core.platform import PlatformConfig, load_platform

_NO_RUN_YET = "00000000"

PlatformFile = Annotated[
    Path | None,
    typer.Option(
        "--platform", envvar="STEERLM_PLATFORM", help="The platform file.", show_default="its defaults throughout"
    ),
]


def render(
    run: Annotated[
        str, typer.Argument(metavar="CONFIG_OR_RUN", help="A configuration, or a run root.", show_default=False)
    ],
    platform: PlatformFile = None,
    root: Annotated[str, typer.Option(help="Run root of a configuration that has no run yet.")] = "s3://bucket/prefix",
    iteration: Annotated[int, typer.Option(min=0, help="The iteration.")] = 0,
    attempt: Annotated[int, typer.Option(min=0, help="The attempt.")] = 0,
) -> None:
    """Print the PyTorchJob of a training step as YAML; nothing is created."""
    from steerlm_core.kube.job.spec import JobTarget, build_job

    found = given_platform(platform)
    if found.image.name is None:
        raise ConfigError("image.name: none, so pods take the launcher's own image; to render, name it in --platform.")
    run_id, config, where = _run(run, root)
    target = JobTarget.of(where, run_id, config, iteration)
    manifest = build_job(target, found, found.image.name, found.train_job.namespace or _namespace(), attempt, [])
    typer.echo(yaml.safe_dump(manifest, sort_keys=False), nl=False)


def given_platform(path: Path | None) -> PlatformConfig:
    """Return the platform of a file, or the defaults."""
    return PlatformConfig() if path is None else load_platform(path)


def _run(run: str, root: str) -> tuple[str, RunConfig, str]:
    """Return id, configuration and root of a run, or of the run that a configuration would become."""
    from steerlm_core.store import absolute_root

    if Path(run).is_file():
        config = load_config(run)
        return f"{config.name}-{_NO_RUN_YET}", config, absolute_root(root)
    from steerlm_core.run import open_run

    found = open_run(run)
    return found.run_id, found.config, absolute_root(found.root)


def _namespace() -> str:
    """Return where a launcher that is started here would create the job."""
    from steerlm_core.kube.api.client import ClusterError, default_namespace

    try:
        return default_namespace()
    except ClusterError:
        typer.echo(
            "namespace: 'default' is assumed, as train_job.namespace names none and there is no kubeconfig here; in "
            "another one the job has another name.",
            err=True,
        )
        return "default"
