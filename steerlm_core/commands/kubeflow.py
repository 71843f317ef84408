"""`steerlm kubeflow …`: submit, upload, schedule and look at runs on Kubeflow Pipelines."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlm_core.commands.render import PlatformFile
from steerlm_core.config import RunConfig, load_config
from steerlm_core.errors import ConfigError
from steerlm_core.observe.text import duration
from steerlm_core.platform_config import load_platform

if TYPE_CHECKING:
    from steerlm_core.kubeflow.client import Address, Kubeflow
    from steerlm_core.kubeflow.follow import Step
    from steerlm_core.kubeflow.package import Package

_FAILED, _INTERRUPTED = 1, 130
_SHOWN = 20

app = typer.Typer(no_args_is_help=True, help="Submit, upload, schedule and look at runs on Kubeflow Pipelines.")

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

Image = Annotated[
    str | None, typer.Option(envvar="STEERLM_IMAGE", help="Image of the steps where the platform file names none.")
]

Config = Annotated[Path | None, typer.Argument(help="The configuration, a YAML file.", show_default=False)]
ConfigUri = Annotated[str | None, typer.Option(help="Where the first step reads the configuration: s3://…")]
BaseRoot = Annotated[str | None, typer.Option(help="Folder of run roots, s3://BUCKET/PREFIX; each run makes its own.")]
MaxIterations = Annotated[int | None, typer.Option(min=1, help="Most iterations.", show_default="the configuration's")]
Shards = Annotated[int | None, typer.Option(min=1, help="Pods that a step is split over.", show_default="1")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another input of the pipeline.")
]
Experiment = Annotated[str, typer.Option(help="Experiment in Kubeflow.")]
_EXPERIMENT = "steerlm"


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
    experiment: Experiment = _EXPERIMENT,
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

    found = _checked(config, config_uri)
    arguments = _arguments(found, root, base_root, config_uri, max_iterations, shards)
    with pipeline(platform, image, arguments.get("max_iterations")) as package:
        arguments = _checked_arguments(package, arguments, settings)
        with connect(address(host, namespace, token_file, ca)) as kubeflow:
            name = found.name if found else package.name
            run = start(kubeflow, package, arguments, name, experiment, _service_account(platform))
            typer.echo(f"Run {run.run_id} of {package.name} was started in the experiment {experiment}.")
            typer.echo(f"  {kubeflow.link(f'runs/details/{run.run_id}')}")
            if run.earlier:
                typer.echo(f"  {root} has had a run before ({run.earlier}): this one goes on where that ended.")
            if wait:
                _follow(kubeflow, run.run_id)
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
    experiment: Experiment = _EXPERIMENT,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it instead.")] = False,
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
    arguments = _arguments(_checked(config, config_uri), None, base_root, config_uri, max_iterations, shards)
    arguments = _checked_arguments(package, arguments, settings)
    with connect(where) as kubeflow:
        account = _service_account(platform)
        typer.echo(start(kubeflow, package, arguments, moment, name, experiment, account))


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(help="Id of a run.", show_default="the runs of the experiment")] = None,
    experiment: Experiment = _EXPERIMENT,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: CA = None,
) -> None:
    """List the runs of an experiment, or the steps of one run."""
    from steerlm_core.kubeflow.client import connect

    if wait and run is None:
        raise ConfigError("--wait: give the id of the run to follow; `steerlm kubeflow status` lists them.")
    with connect(address(host, namespace, token_file, ca)) as kubeflow:
        if run is None:
            _show_runs(kubeflow, experiment)
        elif wait:
            _follow(kubeflow, run)
        else:
            _show_run(kubeflow, run)


def address(host: str | None, namespace: str | None, token_file: Path | None, ca: Path | None) -> Address:
    """Return what the options of a command say of a Kubeflow."""
    from steerlm_core.kubeflow.client import Address

    return Address(host, namespace, token_file, ca)


def _checked(config: Path | None, uri: str | None) -> RunConfig | None:
    """Load and check the configuration as `steerlm validate` does; None where only its address is given."""
    from steerlm_core.commands.checks import check_data, check_models

    if (config is None) == (uri is None):
        raise ConfigError("give a configuration: one of CONFIG and --config-uri.")
    if config is None:
        return None
    found = load_config(config)
    for line in check_data(found):
        typer.echo(f"warning: skipped {line}", err=True)
    check_models(found)
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
    return found


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


def _service_account(platform: Path | None) -> str | None:
    """Return what pods run as if the platform file says so; else Kubeflow decides, by the kind of its installation."""
    steps = load_platform(platform).steps if platform else None
    return steps.service_account if steps and "service_account" in steps.model_fields_set else None


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


def _follow(kubeflow: Kubeflow, run_id: str) -> None:
    """Print a line for every step that ends, then how the run did; exits by it."""
    from steerlm_core.kubeflow.follow import follow, following, why_it_failed

    try:
        run = follow(kubeflow, run_id, _say)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. The run goes on; follow it again with: {following(run_id)}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if run.state == "SUCCEEDED":
        typer.echo(f"Run {run_id} succeeded.")
        return
    if run.state != "FAILED":
        typer.echo(f"Run {run_id} was {run.state.lower()}.", err=True)
        raise typer.Exit(_FAILED)
    typer.echo(f"error: run {run_id} failed at {why_it_failed(kubeflow, run)}", err=True)
    typer.echo("Retry in the interface goes on at that step, and so does another run on the same root.", err=True)
    raise typer.Exit(_FAILED)


def _say(step: Step) -> None:
    took = "" if step.seconds is None else duration(step.seconds)
    typer.echo(f"{step.title:<32} {step.state.lower():<10} {took}")


def _show_runs(kubeflow: Kubeflow, experiment: str) -> None:
    from steerlm_core.commands.tables import print_table
    from steerlm_core.kubeflow.submit import experiment_id, parameters, recent_runs

    runs = recent_runs(kubeflow, experiment_id(kubeflow, experiment))
    rows = [
        (run.run_id, run.display_name, str(run.state).lower(), _ago(run.created_at),
         str(parameters(run).get("root") or parameters(run).get("base_root") or ""))
        for run in runs[:_SHOWN]
    ]  # fmt: skip
    print_table(("run", "name", "state", "started", "root"), rows, f"Experiment {experiment}: {len(runs)} runs")


def _show_run(kubeflow: Kubeflow, run_id: str) -> None:
    from steerlm_core.commands.tables import print_table
    from steerlm_core.kubeflow.follow import get_run, names_of, steps_of, why_it_failed

    run = get_run(kubeflow, run_id)
    steps = steps_of(run, names_of(kubeflow, run))
    rows = [
        (step.part, step.name, step.state.lower(), "" if step.seconds is None else duration(step.seconds))
        for step in steps
    ]
    print_table(("", "step", "state", "took"), rows, f"{run.display_name}: {str(run.state).lower()}")
    typer.echo(kubeflow.link(f"runs/details/{run_id}"))
    if run.state == "FAILED":
        typer.echo(f"It failed at {why_it_failed(kubeflow, run)}")


def _ago(when: datetime | None) -> str:
    return f"{duration((datetime.now(UTC) - when).total_seconds())} ago" if when else ""
