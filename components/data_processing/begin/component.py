"""Kubeflow component: the step begin of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def begin(
    job: str,
    root: str = "",
    base_root: str = "",
    config: dict = {},  # noqa: B006  (KFP copies it into the component; nobody changes it)
    config_uri: str = "",
    max_iterations: int = 0,
    room: int = 0,
) -> str:
    """Choose the run, and create it if it is new.

    Validates the configuration and writes the immutable run.json. With a root, that is the run, new or to be resumed.
    With a base root it is the unfinished run below it, or a new one that starts from the promoted policy; or none,
    where prompts, annotated data, models and configuration are those of the last finished run.

    Args:
        job: Id of the pipeline run; a new run under a base root bears its name.
        root: Where the run lives: a folder, or an s3:// address.
        base_root: Where runs follow each other; give this or root.
        config: The run's configuration, the same mapping as in the YAML file of the command line.
        config_uri: A YAML file with the configuration; give this or config.
        max_iterations: Most iterations of the run; 0: as its configuration says.
        room: Iterations that the pipeline has room for, so that a run that wants more is refused; 0: any number.

    Returns:
        The run's root; empty where there is nothing new.
    """
    from steerlm_core.begin import begin as begin_run

    run = begin_run(root, base_root, config or None, config_uri, job, max_iterations, room)
    return run.root if run else ""
