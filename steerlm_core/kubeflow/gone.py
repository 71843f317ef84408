"""Whether a run that Kubeflow calls at work is gone: Kubeflow does not notice that its Workflow was deleted, ever."""

from __future__ import annotations

from typing import Any

from steerlm_core.errors import SteerLMError
from steerlm_core.kube.api.client import ClusterError, connect
from steerlm_core.kube.launch.pipeline_run import PipelineRun
from steerlm_core.kubeflow.client import INSTALLED_IN, Kubeflow
from steerlm_core.kubeflow.run_root import store_of
from steerlm_core.kubeflow.runs import get_run, has_ended, recent_runs, retrying, state_word
from steerlm_core.store.gc import at_work, left_behind

_OTHERS = 10  # a Workflow is up to 1 MiB long
ENDING_SECONDS = 120.0  # a Workflow that is there ends within its pods' grace time, half a minute


def in_cluster(kubeflow: Kubeflow, run: Any) -> PipelineRun:
    """Return a run as the cluster knows it that the kubeconfig, or the account of this pod, leads to.

    Raises:
        ClusterError: There is no way into a cluster.
    """
    return PipelineRun(connect(kubeflow.namespace or INSTALLED_IN), run.run_id)


def why_gone(kubeflow: Kubeflow, run: Any) -> str:
    """Return why a run counts as gone, of which Kubeflow says that it is at work; "" where it may be."""
    there = has_workflow(kubeflow, run)
    if there is None:
        return _lease_ran_out(run)
    return "" if there else "its Workflow does not exist any more"


def counts_as_gone(run: Any, why: str) -> str:
    """Return the words for a run that will be at work for Kubeflow for ever, and is not."""
    return (
        f"Run {run.run_id} counts as gone: {why}. Kubeflow does not notice that, and goes on calling it "
        f"{state_word(run.state)} until it is deleted there."
    )


def terminated(kubeflow: Kubeflow, run: Any) -> tuple[Any, str]:
    """Give a run that is being terminated the time to end; returns it, and why it counts as gone if it has not."""
    if gone := why_gone(kubeflow, run):
        return run, gone
    run = retrying(ENDING_SECONDS, has_ended)(get_run, kubeflow, run.run_id)
    if has_ended(run) or has_workflow(kubeflow, run):
        return run, ""
    return run, "it was terminated, and does not end"


def has_workflow(kubeflow: Kubeflow, run: Any) -> bool | None:
    """Whether the run's Workflow exists; None: not to be known from here."""
    try:
        return look_for_workflow(kubeflow, run)
    except ClusterError:
        return None


def look_for_workflow(kubeflow: Kubeflow, run: Any) -> bool | None:
    """Whether the run's Workflow is in the cluster; None where it is not, which may be another cluster than Kubeflow's.

    It is Kubeflow's if Kubeflow was found by way of it, and where it has other runs of this Kubeflow.

    Raises:
        ClusterError: There is no way into a cluster, or it may not be asked.
    """
    cluster = in_cluster(kubeflow, run)
    if cluster.workflow():
        return True
    if kubeflow.own_cluster:
        return False
    others = [other.run_id for other in recent_runs(kubeflow, run.experiment_id) if other.run_id != run.run_id]
    return False if cluster.has_any_of(others[:_OTHERS]) else None


def _lease_ran_out(run: Any) -> str:
    """Return whose lease of the run's root has run out, if that is so of all who were at work."""
    try:
        store = store_of(run)
        left = [] if at_work(store) else left_behind(store, run.created_at.timestamp())
    except (SteerLMError, OSError):
        return ""
    return f"nobody has renewed the lease of its step on {store.root} ({left[0]})" if left else ""
