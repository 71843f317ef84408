"""Runs of the toy world: one that keeps cut responses, and one that drops them."""

import shutil
from pathlib import Path

import pytest

from steerlm_core.config import RunConfig
from tests.once import Once
from tests.steps.world import World, loop
from tests.toy.runs import Finished
from tests.toy.world import small


@pytest.fixture(scope="session")
def keeping(finished: Finished) -> World:
    """Two iterations that keep cut responses; not to be changed."""
    return World(finished(2))


@pytest.fixture
def world(keeping, tmp_path) -> World:
    """The same, to be changed."""
    return World(Path(shutil.copytree(keeping.root, tmp_path / "run")))


@pytest.fixture(scope="session")
def dropping(toy: RunConfig, once: Once) -> World:
    """One iteration that drops cut responses, of which it has many; not to be changed."""
    config = small(toy, truncated="drop", max_new_tokens=2)
    prompts = config.prompts.model_copy(update={"train": 32, "held_out": 32})  # so that some groups stay short
    config = config.model_copy(update={"prompts": prompts})
    return World(once.made("dropping", lambda folder: loop(folder / "run", config, 1)) / "run")
