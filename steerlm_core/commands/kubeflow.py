"""`steerlm kubeflow …`: submit, upload, schedule, look at and stop runs on Kubeflow Pipelines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlm_core.commands.kubeflow_options import (
    CA,
    EXPERIMENT,
    Experiment,
    Host,
    Image,
    Namespace,
    TokenFile,
    address,
    pipeline,
    service_account,
)
from steerlm_core.commands.kubeflow_status import follow_run, status
from steerlm_core.commands.kubeflow_stop import stop
from steerlm_core.commands.render import PlatformFile
from steerlm_core.config import RunConfig, load_config
from steerlm_core.errors import ConfigError

if TYPE_CHECKING:
    from steerlm_core.kubeflow.package import Package

app = typer.Typer(no_args_is_help=True, help="Submit, upload, schedule, look at and stop runs on Kubeflow Pipelines.")

Config = Annotated[Path | None, typer.Argument(help="The configuration, a YAML file.", show_default=False)]
ConfigUri = Annotated[str | None, typer.Option(help="Where the first step reads the configuration: s3://…")]
BaseRoot = Annotated[str | None, typer.Option(help="Folder of run roots, s3://BUCKET/PREFIX; each run makes its own.")]
MaxIterations = Annotated[int | None, typer.Option(min=1, help="Most iterations.", show_default="the configuration's")]
Shards = Annotated[int | None, typer.Option(min=1, help="Pods that a step is split over.", show_default="1")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another input of the pipeline.")
]
Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Check prompts and models, unless only pods see where they lie.")
]


@app.command()
def submit(
    config: Config = None,
    root: Annotated[str | None, typer.Option(help="Run root, s3://BUCKET/PREFIX; one with a run goes on.")] = None,
    base_root: BaseRoot = None,
    config_uri: ConfigUri = None,
    max_iterations: MaxIterations = None,
    shards: Shards = None,
    settings: Settings = None,
    platform: PlatformFile = None,
    image: Image = None,
    experiment: Experiment = EXPERIMENT,
    check: Check = True,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit 0 if it succeeds, 1 if it fails.")] = False,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: CA = None,
) -> None:
    """Start a run on Kubeflow; on a root that holds an unfinished run, go on with it."""
    from steerlm_core.kubeflow.client import connect
    from steerlm_core.kubeflow.follow import following
    from steerlm_core.kubeflow.submit import submit as start

    found = _checked(config, config_uri, check)
    arguments = _arguments(found, root, base_root, config_uri, max_iterations, shards)
    with pipeline(platform, image, arguments.get("max_iterations")) as package:
        arguments = _checked_arguments(package, arguments, settings)
        with connect(address(host, namespace, token_file, ca)) as kubeflow:
            name = found.name if found else package.name
            run = start(kubeflow, package, arguments, name, experiment, service_account(platform))
            typer.echo(f"Run {run.run_id} of {package.name} was started in the experiment {experiment}.")
            typer.echo(f"  {kubeflow.link(f'runs/details/{run.run_id}')}")
            for words in run.earlier:
                typer.echo(f"  {words}")
            if run.earlier:
                typer.echo("  This one goes on where that ended.")
            if wait:
                follow_run(kubeflow, run.run_id)
            else:
                typer.echo(f"Follow it with: {following(run.run_id)}")


@app.command()
def upload(
    platform: PlatformFile = None,
    image: Image = None,
    max_iterations: Annotated[
        int | None, typer.Option(min=1, help="Room for so many iterations.", show_default="8")
    ] = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: CA = None,
) -> None:
    """Upload the pipeline, or a new version of it; one that is there already is left as it is."""
    from steerlm_core.kubeflow.client import connect
    from steerlm_core.kubeflow.submit import upload as put

    where = address(host, namespace, token_file, ca)
    with pipeline(platform, image, max_iterations) as package, connect(where) as kubeflow:
        done = put(kubeflow, package)
        what = "was uploaded" if done.new else "is there already"
        typer.echo(f"{package.name}, version {package.version}, {what}.")
        typer.echo(f"  {kubeflow.link(f'pipelines/details/{done.pipeline_id}/version/{done.version_id}')}")
        if done.latest != package.version:
            typer.echo(f"  Recurring runs follow the latest version, which is {done.latest}.")


@app.command()
def schedule(
    config: Config = None,
    cron: Annotated[str | None, typer.Option(help="When, in five fields: '0 3 * * *' is three o'clock.")] = None,
    interval: Annotated[str | None, typer.Option(help="How often: 90m, 24h, 7d.")] = None,
    base_root: BaseRoot = None,
    config_uri: ConfigUri = None,
    max_iterations: MaxIterations = None,
    shards: Shards = None,
    settings: Settings = None,
    name: Annotated[str, typer.Option(help="Name of the recurring run.")] = "steerlm-retrain",
    experiment: Experiment = EXPERIMENT,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it instead.")] = False,
    check: Check = True,
    platform: PlatformFile = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: CA = None,
) -> None:
    """Have runs started again and again, one at a time, with the latest version of the uploaded pipeline."""
    from steerlm_core.kubeflow.client import connect
    from steerlm_core.kubeflow.package import packaged
    from steerlm_core.kubeflow.schedule import schedule as start
    from steerlm_core.kubeflow.schedule import unschedule, when

    where = address(host, namespace, token_file, ca)
    if delete:
        with connect(where) as kubeflow:
            typer.echo(unschedule(kubeflow, name))
        return
    moment = when(cron, interval)
    if not base_root:
        raise ConfigError("--base-root: missing; each run of a schedule makes its root below it.")
    package = packaged()
    arguments = _arguments(_checked(config, config_uri, check), None, base_root, config_uri, max_iterations, shards)
    arguments = _checked_arguments(package, arguments, settings)
    with connect(where) as kubeflow:
        account = service_account(platform)
        typer.echo(start(kubeflow, package, arguments, moment, name, experiment, account))


app.command()(status)
app.command()(stop)


def _checked(config: Path | None, uri: str | None, check: bool) -> RunConfig | None:
    """Load and check the configuration as `steerlm validate` does; None where only its address is given."""
    from steerlm_core.run import check_given

    if (config is None) == (uri is None):
        raise ConfigError("give a configuration: one of CONFIG and --config-uri.")
    if config is None:
        return None
    found = load_config(config)
    if check:
        for line in check_given(found):
            typer.echo(f"warning: skipped {line}", err=True)
    _warn_of_files(found)
    return found


def _warn_of_files(found: RunConfig) -> None:
    """Name what lies on this machine: pods may not see it."""
    models = found.models
    for place, value in (
        ("prompts.source", found.prompts.source), ("annotated.source", found.annotated.source),
        ("models.prior", models.prior), ("models.policy", models.policy), ("models.attribute", models.attribute),
    ):  # fmt: skip
        if value and Path(value).exists():
            typer.echo(
                f"warning: {place}: {value} is a file of this machine; pods see it only on a volume mounted there, "
                "otherwise put it on the object store (s3://…).",
                err=True,
            )


def _arguments(
    config: RunConfig | None, root: str | None, base_root: str | None, config_uri: str | None,
    max_iterations: int | None, shards: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the arguments that have options of their own."""
    from steerlm_core.kubeflow.package import plain

    if (root is None) == (base_root is None):
        raise ConfigError("give one of --root and --base-root.")
    for place, value in (("--root", root), ("--base-root", base_root)):
        if value and not value.startswith(("s3://", "/")):
            raise ConfigError(f"{place} {value}: give s3://BUCKET/PREFIX, or the path of a volume that all pods mount.")
    given = {
        "root": root, "base_root": base_root, "config": plain(config) if config else None, "config_uri": config_uri,
        "max_iterations": max_iterations or (config.max_iterations if config else None), "shards": shards,
    }  # fmt: skip
    return {key: value for key, value in given.items() if value is not None}


def _checked_arguments(package: Package, arguments: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """Return the arguments with those of --set, checked against the pipeline's inputs; asks nobody."""
    from steerlm_core.kubeflow.package import check_arguments

    all_of_them = arguments | _settings(settings or [], package.inputs)
    check_arguments(package, all_of_them)
    return all_of_them


def _settings(settings: list[str], inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Read NAME=VALUE: text where the pipeline takes text, JSON elsewhere."""
    read: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: give NAME=VALUE.")
        try:
            is_text = inputs.get(name, {}).get("parameterType", "STRING") == "STRING"
            read[name] = text if is_text else json.loads(text)
        except ValueError as error:
            raise ConfigError(f"--set {setting}: the value is not JSON ({error}).") from error
    return read
