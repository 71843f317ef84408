"""Kubeflow component: the step train of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def train(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics], model: dsl.Output[dsl.Model]):
    """Train the policy on the weighted groups.

    Minimises the SteerLM v2 loss over the training groups, starting from the policy that the candidates came from.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
        model: The next policy, by the address where it stands in the run.
    """
    from steerlm_core.kubeflow.artifacts import registered, shown
    from steerlm_core.runtime import opened, run_step

    with opened(root) as run:
        numbers = run_step(run, "train", iteration)
    metrics.metadata.update(shown(numbers, root, iteration))
    registered(model, "model", root, iteration)
