"""Kubeflow component: the step evaluate of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def evaluate(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics]):
    """Measure the distance of the trained policy on held-out groups.

    Computes KL(ws || b) before and after training for every held-out group, and how much probability mass was retained.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
    """
    from steerlm_core.kubeflow.artifacts import shown
    from steerlm_core.runtime import run_step

    metrics.metadata.update(shown(run_step("evaluate", root, iteration), root, iteration))
