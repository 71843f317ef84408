"""Kubeflow component: the step prepare of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def prepare(root: str, shards: int = 1) -> list:
    """Make what the loop starts from.

    Writes the prompts with their targets, split into train and held-out; brings the prior, and makes the attribute
    model and policy 0 where the configuration names none. What is there already is left as it is.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        shards: Split sampling and scoring over so many pods, but no more than the prompt set has parts.

    Returns:
        The shards, as text: 0/2 and 1/2 are the two halves of a step.
    """
    from steerlm_core import runtime

    with runtime.opened(root) as run:
        return runtime.prepare(run, shards)
