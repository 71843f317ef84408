"""Objects of a run in a cluster, as Kubeflow and Argo label them."""

from __future__ import annotations


def pod(run_id: str, node: str, *conditions: dict, waiting: dict | None = None) -> dict:
    """A pod of a run: running, or without a node for these conditions, or with a container that waits."""
    state = {"waiting": waiting} if waiting else {"running": {}}
    return {
        "metadata": {"name": "the-pod", "labels": {"pipeline/runid": run_id},
                     "annotations": {"workflows.argoproj.io/node-name": node}},
        "status": {"phase": "Pending", "conditions": conditions or [{"type": "PodScheduled", "status": "True"}],
                   "containerStatuses": [] if conditions else [{"name": "main", "state": state}]},
    }  # fmt: skip


def workflow(run_id: str) -> dict:
    return {"metadata": {"name": "steerlm-v2-9jgx7", "labels": {"pipeline/runid": run_id}}}
