"""Stopping a run, and waiting until its training job is gone.

Kubeflow gives the Workflow no more time; the launcher in the train step sees that, and deletes its job in ten seconds.
"""

from __future__ import annotations

from typing import Any

from kfp_server_api import ApiException

from steerlm_core.errors import KubeflowError
from steerlm_core.kube.api.client import ClusterError
from steerlm_core.kube.launch.pipeline_run import PipelineRun
from steerlm_core.kubeflow.client import Kubeflow
from steerlm_core.kubeflow.gone import counts_as_gone, in_cluster, look_for_workflow, terminated
from steerlm_core.kubeflow.refusals import has_no_workflow
from steerlm_core.kubeflow.runs import CANCELING, get_run, has_ended, how_it_stands, retrying
from steerlm_core.kubeflow.tasks import workflow_of

JOB_SECONDS = 300.0  # a pod that does not answer keeps its job as long as its node keeps the pod


def stop(kubeflow: Kubeflow, run_id: str) -> list[str]:
    """Terminate a run, and wait until it has ended and its training job is gone; returns what was done, in words.

    Raises:
        KubeflowError: There is no such run, or it, or its job, has not ended.
    """
    run = get_run(kubeflow, run_id)
    if has_ended(run):
        return [f"Run {run_id} has ended already: {how_it_stands(run)}.", _without_job(kubeflow, run)]
    gone = "" if run.state == CANCELING else _terminate(kubeflow, run_id)
    if not gone:
        run, gone = terminated(kubeflow, get_run(kubeflow, run_id))
    if gone:
        return [counts_as_gone(run, gone), _without_job(kubeflow, run)]
    if not has_ended(run):
        raise KubeflowError(
            f"run {run_id}: was terminated, and its Workflow has not ended yet ({how_it_stands(run)}); see "
            f"{kubeflow.link(f'runs/details/{run_id}')}, and whether Argo's controller runs."
        )
    return [f"Run {run_id} was stopped.", _without_job(kubeflow, run)]


def _terminate(kubeflow: Kubeflow, run_id: str) -> str:
    """Ask for the end of a run; returns why it counts as gone where there is nothing to end."""
    try:
        kubeflow.client.terminate_run(run_id)
    except ApiException as error:
        if has_no_workflow(error):
            return "its Workflow does not exist any more"
        if not has_ended(get_run(kubeflow, run_id)):  # else it was faster
            raise
    return ""


def _without_job(kubeflow: Kubeflow, run: Any) -> str:
    """Wait until no training job of a run is left.

    Raises:
        KubeflowError: One is left.
    """
    unseen = "its Workflow is not in the cluster that the kubeconfig leads to"
    try:
        if look_for_workflow(kubeflow, run) is not None:
            return _job_gone(in_cluster(kubeflow, run), run)
    except ClusterError as error:
        unseen = str(error).rstrip(".")
    return f"Whether a training job is left cannot be seen from here ({unseen}); it goes some seconds after its run."


def _job_gone(cluster: PipelineRun, run: Any) -> str:
    workflow = workflow_of(run)
    left = retrying(JOB_SECONDS, lambda jobs: not jobs)(cluster.jobs, workflow) if workflow else []
    if left:
        raise KubeflowError(
            f"run {run.run_id}: has ended, but its training job {left[0]} is still there; "
            f"kubectl delete pytorchjob -n {cluster.namespace} {left[0]}"
        )
    return f"No training job of it is left in the namespace {cluster.namespace}."
