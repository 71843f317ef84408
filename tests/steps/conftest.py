"""Runs of the toy world: one that keeps cut responses, and one that drops them."""

import shutil
from pathlib import Path

import pytest

from steerlm_core.config import RunConfig
from tests.steps.world import World, loop
from tests.toy.world import build, small


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return small(build(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="session")
def keeping(config, tmp_path_factory) -> World:
    """Two iterations that keep cut responses; not to be changed."""
    world = World(tmp_path_factory.mktemp("keep") / "run")
    loop(world.root, config)
    return world


@pytest.fixture
def world(keeping, tmp_path) -> World:
    """The same, to be changed."""
    return World(Path(shutil.copytree(keeping.root, tmp_path / "run")))


@pytest.fixture(scope="session")
def dropping(config, tmp_path_factory) -> World:
    """One iteration that drops cut responses, of which it has many; not to be changed."""
    world = World(tmp_path_factory.mktemp("drop") / "run")
    world_config = small(config, truncated="drop", max_new_tokens=2)
    prompts = world_config.prompts.model_copy(update={"train": 32, "held_out": 32})  # so that some groups stay short
    loop(world.root, world_config.model_copy(update={"prompts": prompts}), 1)
    return world
