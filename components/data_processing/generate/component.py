"""Kubeflow component: the step generate of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def generate(
    root: str,
    iteration: int,
    metrics: dsl.Output[dsl.Metrics],
    candidates: dsl.Output[dsl.Dataset],
    shard: str = "0/1",
):
    """Sample candidate responses from the current policy.

    Draws N complete responses for every prompt and target of the run, with their token ids, and re-scores logQ by the
    forward pass that training uses. Fails when the sampler's own log-probabilities drift from it.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
        candidates: The candidates, by the address where they stand in the run.
        shard: Which shard this is, such as 0/2, the first of two; each does every n-th part.
    """
    from steerlm_core.kubeflow.artifacts import registered, shown
    from steerlm_core.runtime import opened, run_step

    with opened(root) as run:
        numbers = run_step(run, "generate", iteration, shard)
    metrics.metadata.update(shown(numbers, root, iteration))
    registered(candidates, "candidates", root, iteration)
