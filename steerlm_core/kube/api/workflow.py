"""The Argo Workflow of this pod, and whether another one has ended: what tells a dead run from a waiting one."""

from __future__ import annotations

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ForbiddenError, connect, own_cluster, own_namespace
from steerlm_core.kube.api.own_pod import own_pod, workflow_of
from steerlm_core.retrain.running import WorkflowName

_ENDED = ("Succeeded", "Failed", "Error")


def own_workflow() -> WorkflowName:
    """Return this pod's Workflow; one without a name where it has none, or may not be read."""
    pod = own_pod(connect())
    workflow = workflow_of(pod) if pod else None
    return WorkflowName(workflow.name, workflow.namespace, own_cluster()) if workflow else WorkflowName()


def has_ended(workflow: WorkflowName) -> bool | None:
    """Return whether a Workflow has ended or is gone; None where that may not be read, as in another namespace.

    A claim of an older release names no namespace: its Workflow is looked for in this one.
    """
    namespace = own_namespace() or "default"
    if workflow.namespace and (workflow.namespace, workflow.cluster) != (namespace, own_cluster()):
        return None
    try:
        found = connect().get(f"{paths.workflows(namespace)}/{workflow.name}")
    except ForbiddenError:
        return None
    return found is None or found.get("status", {}).get("phase") in _ENDED
