"""The report as Markdown."""

from __future__ import annotations

from steerlm_core.report.markdown import write_markdown
from steerlm_core.run import open_run


def test_markdown_names_reason_and_iterations(root, run, tmp_path):
    write_markdown(open_run(str(root)), tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert run.reason in text
    assert "## Iterations" in text
