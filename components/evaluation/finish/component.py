"""Kubeflow component: the step finish of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def finish(root: str, max_iterations: int, metrics: dsl.Output[dsl.Metrics]):
    """Promote the run's model, or say why not.

    Only a run under a base root is ever promoted: when its decision is good, and its model on fresh candidates of the
    same held-out pairs is no worse than the promoted one that it started from.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        max_iterations: Most iterations of the run; 0: as its configuration says.
        metrics: Whether the model is promoted, and the sentence that says why; they name the run that they are of.
    """
    from steerlm_core import runtime
    from steerlm_core.kubeflow.artifacts import shown
    from steerlm_core.run import open_run

    done = runtime.finish(open_run(root), max_iterations)
    print(done["words"])
    metrics.metadata.update(shown(done, root))
