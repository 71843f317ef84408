"""Kubeflow component: the step label of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def label(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics]):
    """Label candidates with the attribute model.

    Predicts every attribute of every candidate and computes log P(a|x,y) of the target that it was asked for.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
    """
    from steerlm_core.kubeflow.artifacts import shown
    from steerlm_core.runtime import run_step

    metrics.metadata.update(shown(run_step("label", root, iteration), root, iteration))
