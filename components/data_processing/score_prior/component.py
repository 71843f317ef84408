"""Kubeflow component: the step score_prior of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def score_prior(
    root: str,
    iteration: int,
    metrics: dsl.Output[dsl.Metrics],
    prior_scores: dsl.Output[dsl.Dataset],
    shard: int = 0,
    shards: list = [0],  # noqa: B006  (KFP copies it into the component; nobody changes it)
):
    """Score candidates under the prior.

    Computes log P(y|x) of every candidate by the unconditional response model, on the stored token ids.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
        prior_scores: The prior scores, by the address where they stand in the run.
        shard: Which shard of the step this is.
        shards: All shards of the step; each does every n-th part.
    """
    from steerlm_core.kubeflow.artifacts import registered, shown
    from steerlm_core.runtime import opened, run_step

    with opened(root) as run:
        numbers = run_step(run, "score_prior", iteration, shard, len(shards))
    metrics.metadata.update(shown(numbers, root, iteration))
    registered(prior_scores, "prior_scores", root, iteration)
