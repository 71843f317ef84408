"""Kubeflow component: the step decide of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def decide(root: str, iteration: int, metrics: dsl.Output[dsl.Metrics], document: dsl.Output[dsl.HTML]):
    """Decide whether the iteration is accepted and whether the loop goes on.

    Compares the evaluations so far by a paired bootstrap, says the reason in a sentence, and commits the iteration.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        iteration: Number of the iteration, from 0.
        metrics: Counts and figures of this step; they name the run and the iteration that they are of.
        document: The report of the run so far; it names the run and the iteration that it is of.
    """
    from pathlib import Path

    from steerlm_core.kubeflow.artifacts import shown
    from steerlm_core.report.html import write_html
    from steerlm_core.runtime import opened, run_step

    with opened(root) as run:
        numbers = run_step(run, "decide", iteration)
    metrics.metadata.update(shown(numbers, root, iteration))
    write_html([run], Path(document.path), upto=iteration)
    document.metadata.update(shown({}, root, iteration))
