"""Kubeflow component: the step weigh of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def weigh(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics], groups: dsl.Output[dsl.Dataset]):
    """Join candidates, labels and prior scores into weighted groups.

    Computes the target importance weights of every group, drops what cannot be trained on, and counts it.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
        groups: The groups, by the address where they stand in the run.
    """
    from steerlm_core.kubeflow.artifacts import registered, shown
    from steerlm_core.runtime import opened, run_step

    with opened(root) as run:
        numbers = run_step(run, "weigh", iteration)
    metrics.metadata.update(shown(numbers, root, iteration))
    registered(groups, "groups", root, iteration)
