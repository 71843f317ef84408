"""Kubeflow component: the step evaluate of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def evaluate(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics], evaluation: dsl.Output[dsl.Dataset]):
    """Measure the distance of the trained policy on held-out groups.

    Computes KL(ws || b) before and after training for every held-out group, and how much probability mass was retained.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
        evaluation: The distances of every held-out group, by the address where they stand in the run.
    """
    from steerlm_core.kubeflow.artifacts import registered, shown
    from steerlm_core.runtime import opened, run_step

    with opened(root) as run:
        numbers = run_step(run, "evaluate", iteration)
    metrics.metadata.update(shown(numbers, root, iteration))
    registered(evaluation, "evaluation", root, iteration)
