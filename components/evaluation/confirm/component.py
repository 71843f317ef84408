"""Kubeflow component: the step confirm of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def confirm(root: str, metrics: dsl.Output[dsl.Metrics]):
    """Confirm the best policy on fresh candidates.

    After the loop has stopped, samples the held-out prompts once more from the best accepted policy and measures its
    distance and its steering error: requested levels against predicted and measured ones.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        metrics: Fresh distance and steering error; they name the run that they are of.
    """
    from steerlm_core import runtime
    from steerlm_core.kubeflow.artifacts import shown

    with runtime.opened(root) as run:
        numbers = runtime.confirm(run)
    metrics.metadata.update(shown(numbers, root))
