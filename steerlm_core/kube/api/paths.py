"""Where the API server keeps what the launcher looks at."""

from __future__ import annotations

JOB_GROUP, JOB_VERSION = "kubeflow.org", "v1"


def jobs(namespace: str) -> str:
    """The PyTorchJobs of a namespace."""
    return f"/apis/{JOB_GROUP}/{JOB_VERSION}/namespaces/{namespace}/pytorchjobs"


def job(namespace: str, name: str) -> str:
    """One PyTorchJob."""
    return f"{jobs(namespace)}/{name}"


def pods(namespace: str) -> str:
    """The pods of a namespace."""
    return f"/api/v1/namespaces/{namespace}/pods"


def events(namespace: str) -> str:
    """The events of a namespace."""
    return f"/api/v1/namespaces/{namespace}/events"


def workflows(namespace: str) -> str:
    """The Argo Workflows of a namespace."""
    return f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
