"""Kubeflow component: the step report of a SteerLM v2 run."""

from kfp import dsl


@dsl.component(base_image="localhost/steerlm:test", install_kfp_package=False)
def report(root: str, document: dsl.Output[dsl.HTML], summary: dsl.Output[dsl.Markdown]):
    """Write the report of a run.

    What came out, whether to trust it, and why the loop stopped: distances, requested against measured attributes,
    weights, drift, samples, the confirmation on fresh candidates, where the time went, and the configuration.

    Args:
        root: Where the run lives: a folder, or an s3:// address.
        document: The report, one self-contained page; it names the run that it is of.
        summary: The same in short, as Markdown.
    """
    from pathlib import Path

    from steerlm_core.report.html import write_html
    from steerlm_core.report.markdown import write_markdown
    from steerlm_core.run import open_run

    run = open_run(root)
    write_html([run], Path(document.path))
    write_markdown(run, Path(summary.path))
    document.metadata["run"] = summary.metadata["run"] = root
