"""Kubeflow component: the step score_prior of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def score_prior(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics]):
    """Score candidates under the prior.

    Computes log P(y|x) of every candidate by the unconditional response model, on the stored token ids.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
    """
    from steerlm_core.kubeflow.artifacts import shown
    from steerlm_core.runtime import run_step

    metrics.metadata.update(shown(run_step("score_prior", root, iteration), root, iteration))
