"""What the commands for Kubeflow have in common: how to reach it, and the pipeline for its platform."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerlm_core.platform import load_platform

if TYPE_CHECKING:
    from steerlm_core.kubeflow.client import Address
    from steerlm_core.kubeflow.package import Package

_HOW = "How to reach Kubeflow"
Host = Annotated[
    str | None,
    typer.Option(
        envvar=["KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"],
        help="URL of Kubeflow Pipelines.",
        show_default="the cluster that this runs in; else a port-forward by kubectl",
        rich_help_panel=_HOW,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(envvar="KFP_NAMESPACE", help="Your namespace on a multi-user Kubeflow.", rich_help_panel=_HOW),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar="KF_PIPELINES_SA_TOKEN_PATH",
        help="File of a token; KFP_EXISTING_TOKEN gives the token itself.",
        rich_help_panel=_HOW,
    ),
]
CA = Annotated[
    Path | None,
    typer.Option(envvar="SSL_CERT_FILE", help="Authority of the host's certificate.", rich_help_panel=_HOW),
]

Experiment = Annotated[str, typer.Option(help="Experiment in Kubeflow.")]
EXPERIMENT = "steerlm"
Image = Annotated[
    str | None, typer.Option(envvar="STEERLM_IMAGE", help="Image of the steps where the platform file names none.")
]


def address(host: str | None, namespace: str | None, token_file: Path | None, ca: Path | None) -> Address:
    """Return what the options of a command say of a Kubeflow."""
    from steerlm_core.kubeflow.client import Address

    return Address(host, namespace, token_file, ca)


@contextmanager
def pipeline(platform: Path | None, image: str | None, iterations: int | None = None) -> Iterator[Package]:
    """Give the pipeline for a platform; it lies in a temporary folder."""
    from steerlm_core.kubeflow.package import package_for

    found = load_platform(platform) if platform else None
    if not (image or (found and found.image.name)):
        typer.echo(
            "warning: no image of the steps is named (--image, or image.name in the platform file): they run "
            "localhost/steerlm:test, which few clusters have.",
            err=True,
        )
    with tempfile.TemporaryDirectory(prefix="steerlm-pipeline-") as folder:
        yield package_for(Path(folder), found, image, iterations)


def service_account(platform: Path | None) -> str | None:
    """Return what pods run as if the platform file says so; else Kubeflow decides, by the kind of its installation."""
    steps = load_platform(platform).steps if platform else None
    return steps.service_account if steps and "service_account" in steps.model_fields_set else None
