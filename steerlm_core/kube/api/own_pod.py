"""What the launcher learns from the pod that it runs in: its image, and the Argo Workflow that it belongs to.

The Workflow owns the jobs. Terminating a run sets `spec.activeDeadlineSeconds` of its Workflow to 0, or
`spec.shutdown`, ten seconds before the launcher gets SIGTERM.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import (
    ForbiddenError,
    KubeApi,
    KubeObject,
    connect,
    own_cluster,
    own_namespace,
    patiently,
)

_PATIENCE_SECONDS, _DENIED_SECONDS = 30.0, 5.0
_MAIN = "main"  # what Argo calls the container of the step
_ENDED = ("Succeeded", "Failed", "Error")


@dataclass(frozen=True)
class Workflow:
    """The Workflow that this pod belongs to.

    Attributes:
        namespace: Where it is.
        reference: An owner reference to it, for objects of the same namespace.
    """

    namespace: str
    reference: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its name."""
        return self.reference["name"]


def own_pod(api: KubeApi) -> KubeObject | None:
    """Return the pod that this process runs in; None outside of one, and where pods may not be read."""
    namespace = own_namespace()
    if namespace is None:
        return None
    name = os.environ.get("POD_NAME") or socket.gethostname()
    try:
        return patiently(lambda: api.get(f"{paths.pods(namespace)}/{name}"), _PATIENCE_SECONDS, _DENIED_SECONDS)
    except ForbiddenError:
        return None


def image_of(pod: KubeObject) -> str:
    """Return the image of the step's container."""
    containers = pod["spec"]["containers"]
    found = next((container for container in containers if container["name"] == _MAIN), containers[0])
    return str(found["image"])


def workflow_of(pod: KubeObject) -> Workflow | None:
    """Return the pod's Workflow; None where it has none."""
    for owner in pod["metadata"].get("ownerReferences", []):
        if owner["kind"] == "Workflow":
            reference = {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")}
            return Workflow(pod["metadata"]["namespace"], reference)
    return None


def is_terminated(workflow: Mapping[str, Any]) -> bool:
    """Whether somebody has ended the run."""
    spec = workflow.get("spec", {})
    return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))


def own_workflow() -> Workflow | None:
    """Return this pod's Workflow; None where it has none, or may not be read."""
    pod = own_pod(connect())
    return workflow_of(pod) if pod else None


def workflow_has_ended(name: str, namespace: str, cluster: str) -> bool | None:
    """Return whether a Workflow has ended or is gone; None where that may not be read, as in another namespace.

    Args:
        name: Its name.
        namespace: Where it is; empty in claims of older releases: it is looked for in this one.
        cluster: What tells its cluster from others, as `own_cluster` does.
    """
    here = own_namespace() or "default"
    if namespace and (namespace, cluster) != (here, own_cluster()):
        return None
    try:
        found = connect().get(f"{paths.workflows(here)}/{name}")
    except ForbiddenError:
        return None
    return found is None or found.get("status", {}).get("phase") in _ENDED
