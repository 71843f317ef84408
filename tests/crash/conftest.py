"""Everything in this folder kills, disturbs or crowds runs, at length; test_some.py has some of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from steerlm_core.config import RunConfig
from tests.crash.trials import Trials, new_trials
from tests.crash.world import tiny


@pytest.fixture(scope="session")
def trials(toy: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """The undisturbed run that all others are compared to."""
    trials = new_trials(tmp_path_factory.mktemp("trials"), tiny(toy))
    yield trials
    trials.clean()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.path.name != "test_some.py":
            item.add_marker(pytest.mark.crash)
            item.add_marker(pytest.mark.timeout(3600))
