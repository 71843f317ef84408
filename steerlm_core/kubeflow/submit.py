"""Submit a run of the pipeline, and upload the pipeline itself.

A run carries the pipeline with it, so that nothing has to be uploaded first. What recurring runs follow, and what the
interface offers, is the uploaded pipeline: its versions are named by the library's version and the package's digest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_server_api import ApiException, V2beta1Pipeline

from steerlm_core.errors import KubeflowError
from steerlm_core.kubeflow.client import Kubeflow, quiet
from steerlm_core.kubeflow.gone import counts_as_gone, terminated, why_gone
from steerlm_core.kubeflow.package import Package
from steerlm_core.kubeflow.runs import (
    CANCELING,
    PAGE,
    by_name,
    has_ended,
    how_it_stands,
    parameters,
    recent_runs,
)

_CONFLICT = 409


@dataclass(frozen=True)
class Submitted:
    """A run that has been started.

    Attributes:
        run_id: Its id in Kubeflow.
        earlier: How runs on the same root ended, in words; none for a root that is new here.
    """

    run_id: str
    earlier: list[str]


@dataclass(frozen=True)
class Uploaded:
    """A version of the pipeline on the server.

    Attributes:
        pipeline_id: Id of the pipeline.
        version_id: Id of the version.
        new: Whether this call has put it there.
        latest: Name of the version that recurring runs follow.
    """

    pipeline_id: str
    version_id: str
    new: bool
    latest: str


def submit(
    kubeflow: Kubeflow,
    package: Package,
    arguments: Mapping[str, Any],
    name: str,
    experiment: str,
    service_account: str | None = None,
) -> Submitted:
    """Start a run.

    Args:
        kubeflow: Where.
        package: The pipeline.
        arguments: Its arguments, checked.
        name: Name of the run, for people; the time is added.
        experiment: The experiment it belongs to; made where there is none.
        service_account: What its pods run as; none: what Kubeflow gives them.

    Raises:
        KubeflowError: Another run is at work on the same root.
    """
    with quiet():
        experiment_id = kubeflow.client.create_experiment(experiment, namespace=kubeflow.namespace).experiment_id
    earlier = _earlier(kubeflow, experiment_id, arguments)
    with quiet():
        run = kubeflow.client.run_pipeline(
            experiment_id,
            f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            pipeline_package_path=str(package.path),
            params=dict(arguments),
            enable_caching=False,
            service_account=service_account,
        )
    return Submitted(run.run_id, earlier)


def _earlier(kubeflow: Kubeflow, experiment_id: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of earlier runs on the same root: how the last one ended, and which count as gone.

    Raises:
        KubeflowError: One is still at work: the second would only wait for, or disturb, the first.
    """
    root = arguments.get("root")
    same = [run for run in recent_runs(kubeflow, experiment_id) if root and parameters(run).get("root") == root]
    ended = [_how_it_ended(kubeflow, run, str(root)) for run in same]
    return [words for words, gone in ended[:1]] + [words for words, gone in ended[1:] if gone]


def _how_it_ended(kubeflow: Kubeflow, run: Any, root: str) -> tuple[str, bool]:
    """Return how a run ended, and whether it counts as gone."""
    gone = ""
    if run.state == CANCELING:
        run, gone = terminated(kubeflow, run)
    elif not has_ended(run):
        gone = why_gone(kubeflow, run)
    if gone:
        return counts_as_gone(run, gone), True
    if not has_ended(run):
        raise KubeflowError(
            f"{root}: run {run.run_id} is at work on this root already ({how_it_stands(run)}); follow it with: "
            f"steerlm kubeflow status {run.run_id} --wait, or end it with: steerlm kubeflow stop {run.run_id}"
        )
    return f"{root} has had a run before ({run.run_id}, {how_it_stands(run)}).", False


def upload(kubeflow: Kubeflow, package: Package) -> Uploaded:
    """Upload the pipeline as a version of its own; a version that is there already stays as it is.

    Raises:
        KubeflowError: A version of this name holds another package.
    """
    pipeline_id = find_pipeline(kubeflow, package.name) or _create_pipeline(kubeflow, package)
    found = _find_version(kubeflow, pipeline_id, package)
    version = found or _upload_version(kubeflow, pipeline_id, package)
    latest = latest_version(kubeflow, pipeline_id)
    return Uploaded(pipeline_id, version.pipeline_version_id, found is None, latest.display_name)


def find_pipeline(kubeflow: Kubeflow, name: str) -> str | None:
    """Return the id of the pipeline of a name, if it is uploaded."""
    found = kubeflow.client.list_pipelines(namespace=kubeflow.namespace, page_size=PAGE, filter=by_name(name)).pipelines
    return str(found[0].pipeline_id) if found else None


def latest_version(kubeflow: Kubeflow, pipeline_id: str) -> Any:
    """Return the version that recurring runs follow; None of a pipeline without one."""
    found = kubeflow.client.list_pipeline_versions(pipeline_id, page_size=1, sort_by="created_at desc")
    return (found.pipeline_versions or [None])[0]


def _create_pipeline(kubeflow: Kubeflow, package: Package) -> str:
    """Make the pipeline without a version: one made by `upload_pipeline` would be named after the pipeline."""
    body = V2beta1Pipeline(
        name=package.name, display_name=package.name, description=package.description, namespace=kubeflow.namespace
    )
    try:
        return str(kubeflow.client.pipelines.pipeline_service_create_pipeline(body).pipeline_id)
    except ApiException as error:
        found = find_pipeline(kubeflow, package.name) if error.status == _CONFLICT else None
        if found is None:
            raise
        return found  # somebody was faster


def _upload_version(kubeflow: Kubeflow, pipeline_id: str, package: Package) -> Any:
    try:
        with quiet():
            return kubeflow.client.upload_pipeline_version(
                str(package.path), package.version, pipeline_id=pipeline_id, description=_described(package)
            )
    except ApiException as error:
        found = _find_version(kubeflow, pipeline_id, package) if error.status == _CONFLICT else None
        if found is None:
            raise
        return found


def _find_version(kubeflow: Kubeflow, pipeline_id: str, package: Package) -> Any:
    """Return the package's version, if it is uploaded.

    Raises:
        KubeflowError: There is one of its name that was made from something else.
    """
    versions = kubeflow.client.list_pipeline_versions(
        pipeline_id, page_size=PAGE, filter=by_name(package.version)
    ).pipeline_versions
    if not versions:
        return None
    if versions[0].description != _described(package):
        raise KubeflowError(
            f"{package.name}: the version {package.version} on {kubeflow.host} was made from another package; delete "
            "it in Kubeflow under Pipelines, and upload again."
        )
    return versions[0]


def _described(package: Package) -> str:
    """What is written beside a version, and tells it from another that took its name."""
    return f"sha256:{package.digest}"
