"""Kubeflow component: the step weigh of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def weigh(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics]):
    """Join candidates, labels and prior scores into weighted groups.

    Computes the target importance weights of every group, drops what cannot be trained on, and counts it.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
    """
    from steerlm_core.kubeflow.artifacts import shown
    from steerlm_core.runtime import run_step

    metrics.metadata.update(shown(run_step("weigh", root, iteration), root, iteration))
