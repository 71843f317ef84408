"""Kubeflow component: the step prepare of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def prepare(root: str, config: dict):
    """Validate a configuration and lay down the run that it describes.

    Writes the immutable run.json and the prompts with their targets, split into train and held-out; brings the prior,
    and makes the attribute model and policy 0 where the configuration names none. On a root that holds this very run
    already it does nothing; on one that holds another run it fails.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        config: The run's configuration, the same mapping as in the YAML file of the command line.
    """
    from steerlm_core import runtime

    runtime.prepare(root, config)
