"""Kubeflow component: the step gate of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def gate(root: str, iteration: int, max_iterations: int) -> str:
    """Say whether an iteration is to run.

    Answers 'stop' once the run has decided to stop or the iteration lies beyond the limit, and fails when the iteration
    before has not been committed. Asking twice gives the same answer, so a new run on the same root resumes.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        max_iterations: Most iterations of the run; may be raised from one pipeline run to the next. 0: as configured.

    Returns:
        'run' or 'stop'.
    """
    from steerlm_core.run import open_run

    return open_run(root).gate(iteration, max_iterations)
