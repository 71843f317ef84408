"""`steerlm report` and `export`."""


def test_report_and_export_pass_the_result_on(steerlm, root, tmp_path):
    assert steerlm("report", root).code == 0
    assert "<h1>tiny" in (root / "report.html").read_text()
    assert steerlm("report", root, root, "--output", tmp_path / "both.html").code == 0
    assert "2 runs compared" in (tmp_path / "both.html").read_text()
    both = steerlm("report", root, root, "--output", tmp_path / "both.md")
    assert (both.code, "several are compared in HTML" in both.err) == (2, True)
    assert steerlm("report", root, "--output", tmp_path / "report.md").code == 0
    report = (tmp_path / "report.md").read_text()
    for word in ("## Iterations", "## Confirmation", "| verbosity |", "## Configuration", "candidates: 3"):
        assert word in report
    assert steerlm("export", root, tmp_path / "model").code == 0
    assert (tmp_path / "model" / "config.json").is_file()
    assert "[verbosity:2,mood:2]" in (tmp_path / "model" / "card.md").read_text()
    again = steerlm("export", root, tmp_path / "model")
    assert again.code == 2
    assert "exists already" in again.err
