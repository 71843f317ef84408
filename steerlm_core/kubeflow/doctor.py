"""Whether a Kubeflow Pipelines is ready for us: what was looked at, what was found, and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from steerlm_core.errors import KubeflowError
from steerlm_core.kube.preflight.check import Check, State
from steerlm_core.kube.preflight.doctor import check_store
from steerlm_core.kubeflow.client import Address, Kubeflow, connect
from steerlm_core.kubeflow.package import Package
from steerlm_core.kubeflow.submit import find_pipeline, latest_version
from steerlm_core.platform import PlatformConfig


def examine(address: Address, package: Package, platform: PlatformConfig, root: str | None) -> Iterator[Check]:
    """Yield a check for everything that a run in Kubeflow will need.

    Args:
        address: Which Kubeflow.
        package: The pipeline that should be uploaded.
        platform: The platform file, or its defaults.
        root: A run root to try; none: the object store is not tried.
    """
    yield Check("kfp", State.OK, version("kfp"))
    try:
        with connect(address) as kubeflow:
            yield Check("host", State.OK, f"{kubeflow.host}, with {kubeflow.authenticated}")
            yield Check("Kubeflow Pipelines", State.OK, kubeflow.version)
            kubeflow.client.list_experiments(namespace=kubeflow.namespace, page_size=1)
            yield Check("namespace", State.OK, kubeflow.namespace or "none: a single user")
            yield _pipeline(kubeflow, package)
    except KubeflowError as error:
        # The message names what does not work, and its way out.
        yield Check("Kubeflow Pipelines", State.FAILED, "cannot be used", str(error))
    yield check_store(root, platform.object_store)


def _pipeline(kubeflow: Kubeflow, package: Package) -> Check:
    """Whether the pipeline is uploaded, and in which version; only schedules and the interface need it."""
    what, repair = f"pipeline {package.name}", "steerlm kubeflow upload"
    pipeline_id = find_pipeline(kubeflow, package.name)
    latest = latest_version(kubeflow, pipeline_id) if pipeline_id else None
    if latest is None:
        return Check(what, State.WARNING, "not uploaded: no schedule can follow it", repair)
    if latest.display_name != package.version:
        return Check(what, State.WARNING, f"{latest.display_name}; yours is {package.version}", repair)
    return Check(what, State.OK, latest.display_name)
