"""The repository's own rules: what CI refuses, and what the lock promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parent.parent

SKIPPING = """
import pytest

@pytest.mark.gpu
def test_gpu():
    pytest.skip("no GPU")

def test_tool():
    pytest.skip("no promtool")

@pytest.mark.xfail(strict=True)
def test_known():
    assert False
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = gpu: needs a GPU")
    return pytester


def test_in_ci_a_missing_tool_fails_and_a_missing_gpu_skips(suite, monkeypatch):
    monkeypatch.setenv("CI", "true")
    suite.makepyfile(SKIPPING)
    result = suite.runpytest_subprocess()
    result.assert_outcomes(failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines("*test_tool would be skipped, and in CI nothing may be: *no promtool*")


def test_in_ci_a_module_that_skips_itself_fails(suite, monkeypatch):
    monkeypatch.setenv("CI", "true")
    suite.makepyfile("import pytest\npytest.importorskip('no_such_module')")
    suite.runpytest_subprocess().assert_outcomes(errors=1)


def test_elsewhere_a_skip_is_a_skip(suite, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    suite.makepyfile(SKIPPING)
    suite.runpytest_subprocess().assert_outcomes(skipped=2, xfailed=1)


def test_the_lock_pins_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    locked = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in locked}
    missing = [need for need in wanted if re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", need)[0]).lower() not in names]
    assert not missing
    assert not [pin for pin in locked.values() if "+" in pin], "a build in a pin resolves on one machine only"


def test_every_path_of_the_architecture_page_exists():
    text = (ROOT / "docs" / "architecture.md").read_text()
    paths = [word for word in re.findall(r"`([^`\s]+)`", text) if "/" in word]
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_name_of_the_architecture_page_stands_where_it_says():
    rows = [row for row in (ROOT / "docs" / "architecture.md").read_text().splitlines() if row.startswith("| a ")]
    for row in rows:
        words = re.findall(r"`([^`\s]+)`", row)
        sources = "".join((ROOT / word).read_text() for word in words if word.endswith(".py"))
        assert [word for word in words if re.fullmatch(r"[A-Za-z_]+", word) and word not in sources] == [], row
