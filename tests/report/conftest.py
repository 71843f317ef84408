"""A finished run of two iterations, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.observe.events import EventLog
from steerlm_core.report.data import RunData
from steerlm_core.report.read import read_run
from steerlm_core.report.run_view import RunView
from steerlm_core.run import open_run
from tests.runs import loop_at
from tests.tiny import tiny_settings
from tools.chromium import Page, browser


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return parse_config(tiny_settings(), "tiny")


@pytest.fixture(scope="session")
def root(tmp_path_factory, config) -> Path:
    """A finished run of two iterations, with a warning."""
    root = tmp_path_factory.mktemp("report") / "run"
    log = EventLog("tiny", _sink(root))
    loop_at(root, config, log=log)
    with log.step("label", 1) as says:
        says.warning("a strange text")
    log.close()
    return root


def _sink(root: Path):
    from steerlm_core.observe.event_store import event_sink
    from steerlm_core.store import open_store

    return event_sink(open_store(str(root)))


@pytest.fixture(scope="session")
def run(root) -> RunData:
    return read_run(RunView(open_run(str(root))))


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def fresh(page) -> Page:
    page.problems.clear()
    page.requests.clear()
    page.view(1000)
    return page
