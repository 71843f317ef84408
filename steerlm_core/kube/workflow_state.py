"""The Argo Workflow of this pod, and whether another one has ended: what tells a dead run from a waiting one."""

from __future__ import annotations

from steerlm_core.kube.api import ForbiddenError, connect, own_namespace
from steerlm_core.kube.own_pod import own_pod, workflow_of

_ENDED = ("Succeeded", "Failed", "Error")
_WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/{}/workflows/{}"


def own_workflow() -> str:
    """Return the name of this pod's Workflow; empty where it has none, or may not be read."""
    pod = own_pod(connect())
    workflow = workflow_of(pod) if pod else None
    return workflow.name if workflow else ""


def has_ended(name: str) -> bool | None:
    """Return whether a Workflow of this namespace has ended or is gone; None where that may not be read."""
    api = connect()
    try:
        found = api.get(_WORKFLOWS.format(own_namespace() or "default", name))
    except ForbiddenError:
        return None
    return found is None or found.get("status", {}).get("phase") in _ENDED
