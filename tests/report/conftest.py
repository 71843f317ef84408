"""A finished run of two iterations, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.observe.event_store import event_sink
from steerlm_core.observe.events import EventLog
from steerlm_core.report.data import RunData
from steerlm_core.report.read import read_run
from steerlm_core.report.run_view import RunView
from steerlm_core.run import open_run
from steerlm_core.store import open_store
from tests.once import Once
from tests.runs import loop_at
from tests.tiny import tiny_settings
from tools.chromium import Page, browser


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return parse_config(tiny_settings(), "tiny")


@pytest.fixture(scope="session")
def root(once: Once, config: RunConfig) -> Path:
    """A finished run of two iterations, with a warning; not to be changed."""
    return once.made("report", lambda folder: _run(folder / "run", config)) / "run"


def _run(root: Path, config: RunConfig) -> None:
    log = EventLog("tiny", event_sink(open_store(str(root))))
    loop_at(root, config, log=log)
    with log.step("label", 1) as says:
        says.warning("a strange text")
    log.close()


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
