"""The HTML report: one file, no script, no network; light, dark, narrow and on paper.

Everything that a model or a user wrote reaches the page through Jinja's escaping; only our own figures are markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from steerlm_core import __version__
from steerlm_core.observe.text import outcome
from steerlm_core.report.checks import checks
from steerlm_core.report.compare import comparison
from steerlm_core.report.data import RunData
from steerlm_core.report.read import read_run
from steerlm_core.report.run_view import RunView
from steerlm_core.report.sections import sections
from steerlm_core.run import Run


def write_html(runs: Sequence[Run], path: Path, upto: int | None = None) -> None:
    """Write the report of a run, or the comparison of several, to a file.

    Args:
        runs: The runs.
        path: The file.
        upto: Only what was known when this iteration ended; None: all that is known now.
    """
    read = [read_run(RunView(run), upto) for run in runs]
    path.write_text(report_html(read[0]) if len(read) == 1 else comparison_html(read), encoding="utf-8")


def report_html(run: RunData) -> str:
    """Return the report of one run."""
    heading = {
        "title": run.config.name,
        "subtitle": f"Run {run.run_id}",
        "outcome": outcome({"kind": run.kind}),
        "decision": run.reason,
        "more": f"The best policy is that of {run.best_policy}." if run.best is not None else "The best is policy 0.",
    }
    return _render(heading=heading, checks=checks(run), sections=sections(run))


def comparison_html(runs: Sequence[RunData]) -> str:
    """Return the comparison of several runs."""
    heading = {
        "title": f"{len(runs)} runs compared",
        "subtitle": ", ".join(run.run_id for run in runs),
        "outcome": "",
        "decision": "",
        "more": "",
    }
    return _render(heading=heading, checks=[], sections=comparison(runs))


def _render(**values: object) -> str:
    environment = Environment(
        loader=PackageLoader("steerlm_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("report.html").render(version=__version__, **values)
