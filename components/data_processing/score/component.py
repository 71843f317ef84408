"""Kubeflow component: the steps label and score_prior of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def score(
    root: str,
    iteration: int,
    metrics: dsl.Output[dsl.Metrics],
    labels: dsl.Output[dsl.Dataset],
    prior_scores: dsl.Output[dsl.Dataset],
    shard: str = "0/1",
):
    """Label candidates with the attribute model, then score them under the prior.

    Does the library's steps label and score_prior one after the other: every attribute of every candidate with log
    P(a|x,y) of the target that it was asked for, then log P(y|x) by the unconditional response model, on the stored
    token ids. The first model is let go before the second is loaded.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of these steps; they name the run and the iteration that they are of.
        labels: The labels, by the address where they stand in the run.
        prior_scores: The prior scores, by the address where they stand in the run.
        shard: Which shard this is, such as 0/2, the first of two; each does every n-th part.
    """
    from steerlm_core.kubeflow.artifacts import registered, shown
    from steerlm_core.runtime import opened, run_step

    with opened(root) as run:
        numbers = run_step(run, "label", iteration, shard)
        run.release_models()
        numbers |= run_step(run, "score_prior", iteration, shard)
    metrics.metadata.update(shown(numbers, root, iteration))
    registered(labels, "labels", root, iteration)
    registered(prior_scores, "prior_scores", root, iteration)
