"""Whether a Kubeflow Pipelines is ready for us, as a table whose last column is what to do."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from steerlm_core.errors import SteerLMError
from steerlm_core.kubeflow.client import Address, Kubeflow, connect
from steerlm_core.kubeflow.package import packaged
from steerlm_core.kubeflow.submit import find_pipeline, latest_version

Row = tuple[str, str, str]


def rows(address: Address, root: str | None) -> Iterator[Row]:
    """Yield what was looked at, what was found, and the way out.

    Args:
        address: Which Kubeflow.
        root: A run root, or what will hold run roots; none: the object store is not looked at.
    """
    yield "kfp", version("kfp"), ""
    try:
        with connect(address) as kubeflow:
            yield "host", kubeflow.host, ""
            yield "Kubeflow Pipelines", kubeflow.version, ""
            yield "namespace", kubeflow.namespace or "none: a single user", ""
            kubeflow.client.list_experiments(namespace=kubeflow.namespace, page_size=1)
            yield "access", "granted", ""
            yield _pipeline(kubeflow)
    except SteerLMError as error:
        # Each message names its way out itself.
        yield "Kubeflow Pipelines", "not usable", str(error)
    yield _store(root)


def _pipeline(kubeflow: Kubeflow) -> Row:
    """Whether the pipeline is uploaded, in which version."""
    package = packaged()
    what = f"pipeline {package.name}"
    pipeline_id = find_pipeline(kubeflow, package.name)
    latest = latest_version(kubeflow, pipeline_id) if pipeline_id else None
    if latest is None:
        return what, "not uploaded", "steerlm kubeflow upload (needed for schedules and the interface only)"
    if latest.display_name != package.version:
        return what, f"{latest.display_name}; yours is {package.version}", "steerlm kubeflow upload"
    return what, latest.display_name, ""


def _store(root: str | None) -> Row:
    """Whether runs can be kept where they are to be."""
    from steerlm_core.store import open_store

    if root is None:
        return "object store", "not looked at", "steerlm doctor --kubeflow --root s3://BUCKET/PREFIX"
    try:
        open_store(root).probe()
    except SteerLMError as error:
        return "object store", f"{root}: not usable from here", str(error)
    return "object store", f"{root}: good", ""
