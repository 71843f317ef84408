"""The report as a page: in a real browser, with a model that writes markup, on paper, and of several runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from steerlm_core.observe.text import printable
from steerlm_core.report import figures
from steerlm_core.report.data import Answer, Sample
from steerlm_core.report.html import comparison_html, report_html, write_html
from steerlm_core.run import open_run
from tests.runs import run_at
from tools.chromium import Page

SECTIONS = ["distance", "steering", "weights", "drift", "attribute-model", "training", "samples", "time", "warnings",
            "lineage", "config"]  # fmt: skip
HOSTILE = "</p><script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=x> \x1b[31m\u202e&amp;"


def _assert_quiet(page: Page, path: Path) -> None:
    assert page.problems == []
    assert set(page.requests) == {path.resolve().as_uri()}


def test_the_report_opens_without_errors_or_network_and_shows_every_section(root, run, fresh, tmp_path):
    path = tmp_path / "report.html"
    write_html([open_run(str(root))], path)
    assert path.stat().st_size < 3_000_000
    fresh.open(path)
    _assert_quiet(fresh, path)
    text = {
        name: fresh.evaluate(f"document.getElementById({json.dumps(name)})?.innerText ?? ''")
        for name in fresh.evaluate("[...document.querySelectorAll('section')].map(each => each.id)")
    }
    assert list(text) == SECTIONS
    assert run.reason in fresh.evaluate("document.querySelector('.decision').innerText")
    for each in run.iterations:
        for key in ("distance_before", "distance_after"):
            found = each.fields[key]
            assert f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" in text["distance"]
        assert each.fields["reason"] in text["distance"]
        assert f"iteration {each.number}" in text["weights"]
        assert f"{each.fields['drift_token']:.7f}" in text["drift"]
    assert f"{run.confirmation['distance']['mean']:.3f}" in text["distance"]
    for name in run.config.attribute_names:
        assert text["steering"].count(f"{name}") >= 3
        assert f"{run.quality[name]['mae']:.2f}" in text["attribute-model"]
    assert "4 means many words" in text["steering"]
    for title in ("Effective sample size", "Largest weight", "log P(a|x,y)", "log P(y|x)", "log Q'(y|a,x)"):
        assert title in text["weights"]
    for title in ("distance of the batch", "gradient norm", "learning rate", "validation loss of policy 0"):
        assert title in text["training"]
    shown = fresh.evaluate("[...document.querySelectorAll('#samples .text')].map(each => each.textContent)")
    assert shown == [printable(answer.text) for sample in run.samples for answer in sample.answers]
    tokens = run.spent[1].tokens
    assert run.spent[1].step == "generate"
    assert tokens
    assert f"{tokens:,}" in text["time"]
    assert "a strange text" in text["warnings"]
    assert "max_new_tokens: 12" in text["config"]


def test_what_a_model_writes_is_text_and_nothing_else(run, fresh, tmp_path):
    answers = [Answer("policy 0", HOSTILE, {"mood": 1.0}, {}), Answer("iteration 0", "", {}, {})]
    hostile = replace(
        run, reason=HOSTILE, samples=[Sample(HOSTILE, {"mood": 1}, answers)], warnings=[(HOSTILE, HOSTILE)]
    )
    path = tmp_path / "hostile.html"
    path.write_text(report_html(hostile))
    fresh.open(path)
    _assert_quiet(fresh, path)
    assert fresh.evaluate("document.querySelectorAll('script, img, iframe, object').length") == 0
    assert "owned" not in fresh.evaluate("document.title")
    shown = fresh.evaluate("document.querySelector('.answer .text').innerText")
    assert shown == HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")


def test_a_title_of_a_figure_cannot_break_out_of_it(fresh, tmp_path):
    svg = figures.heatmap([[1, 0], [0, 1]], 0, HOSTILE.replace("\x1b", "").replace("\u202e", ""))
    path = tmp_path / "figure.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,>{svg}")
    fresh.open(path)
    _assert_quiet(fresh, path)
    assert fresh.evaluate("document.querySelectorAll('script, img').length") == 0


@pytest.mark.parametrize(("width", "dark"), [(1000, False), (1000, True), (360, False)])
def test_the_page_fits_its_window_and_its_text_stands_out(root, fresh, tmp_path, width, dark):
    path = tmp_path / "report.html"
    write_html([open_run(str(root))], path)
    fresh.view(width, dark=dark)
    fresh.open(path)
    assert fresh.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("body", ".lead", "figcaption", ".checks .verdict", "a", ".levels", "h4"):
        assert fresh.evaluate(CONTRAST % json.dumps(selector)) >= 4.5, selector
    figures_without_words = "[...document.querySelectorAll('svg')].filter(s => (s.ariaLabel ?? '').length < 20).length"
    assert fresh.evaluate(figures_without_words) == 0
    clipped = "[...document.querySelectorAll('svg')].filter(s => { const b = s.getBBox(), v = s.viewBox.baseVal;"
    clipped += " return b.x < -1 || b.y < -1 || b.x + b.width > v.width + 1 || b.y + b.height > v.height + 1; })"
    assert fresh.evaluate(f"{clipped}.map(s => s.ariaLabel)") == []


CONTRAST = """(() => {
  const shine = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const element = document.querySelector(%s);
  let ground = element;
  while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(shine);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })()"""


def test_on_paper_nothing_is_cut_off(root, fresh, tmp_path):
    path = tmp_path / "report.html"
    write_html([open_run(str(root))], path)
    fresh.open(path)
    assert fresh.on_paper().startswith(b"%PDF")
    fresh.call("Emulation.setEmulatedMedia", media="print")
    fresh.call("Emulation.setDeviceMetricsOverride", width=700, height=900, deviceScaleFactor=1, mobile=False)
    try:
        assert fresh.evaluate("document.documentElement.scrollWidth") <= 700
        assert fresh.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert fresh.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    finally:
        fresh.call("Emulation.setEmulatedMedia", media="")


def test_a_run_that_has_just_begun_has_a_report(config, tmp_path):

    run_at(tmp_path / "new", config)
    write_html([open_run(str(tmp_path / "new"))], tmp_path / "new.html")
    text = (tmp_path / "new.html").read_text()
    assert "No iteration has been committed yet." in text
    assert re.findall(r'<section id="([\w-]+)"', text) == ["config"]


def test_several_runs_are_compared(root, run, fresh, tmp_path):
    five = run.config.generate.model_copy(update={"candidates": 5})
    other = replace(
        run,
        run_id="other-1234",
        config=run.config.model_copy(update={"seed": 77, "generate": five}),
        iterations=run.iterations[:1],
        confirmation=None,
    )
    path = tmp_path / "comparison.html"
    path.write_text(comparison_html([run, other]))
    fresh.open(path)
    _assert_quiet(fresh, path)
    text = fresh.evaluate("document.body.innerText")
    assert run.run_id in text
    assert "other-1234" in text
    for words in ("seed", "77", "generate.candidates", "3, 5 candidates a group; their distances cannot be compared"):
        assert words in text
    assert "max_new_tokens" not in text  # set alike in both
    write_html([open_run(str(root)), open_run(str(root))], path)
    assert f"{run.run_id} in {root}" in path.read_text()


def test_a_run_of_a_hundred_iterations_is_still_small(run):
    rows = [[40, 30, 20, 9, 1]] * 5
    names = [f"attribute{number}" for number in range(9)]
    levels = {name: {"measured": rows, "predicted": rows} for name in names}
    steering = {name: {"mae_measured": 0.5, "mae_predicted": 0.5, "spearman_measured": 0.8} for name in names}
    curve = {
        "stride": 7,
        **{name: [0.123456] * 399 for name in ("loss", "distance", "ess", "grad_norm", "learning_rate")},
    }
    attributes = [run.config.attributes[0].model_copy(update={"name": name}) for name in names]
    long = replace(
        run,
        config=run.config.model_copy(update={"attributes": attributes}),
        iterations=[replace(run.iterations[0], number=number, curve=curve) for number in range(100)],
        levels=[replace(run.levels[0], counts=levels, steering=steering)] * 101,
        origins=list(run.origins) * 30,
        spent=list(run.spent) * 40,
    )
    assert len(report_html(long).encode()) < 3_000_000
