"""Kubeflow component: the step report of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def report(root: str, document: dsl.Output[dsl.Markdown]):
    """Write the report of a run.

    What came out, whether to trust it, and why the loop stopped: a table of the iterations, the confirmation on fresh
    candidates, where the time went, and the configuration.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        document: The report; it names the run that it is of.
    """
    from pathlib import Path

    from steerlm_core.observe.report import write_report

    write_report(root, Path(document.path))
    document.metadata["run"] = root
