"""A tiny configuration, and a run of it that the command itself has made."""

import json
from pathlib import Path

import pytest

from tests.tiny import tiny_settings, write_settings


@pytest.fixture
def settings() -> dict:
    settings = tiny_settings()
    settings["convergence"]["patience"] = 3  # no plateau in its two iterations
    return settings


@pytest.fixture
def config(tmp_path, settings) -> Path:
    return write_settings(tmp_path, settings)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The root of a run of two iterations, made by the command itself."""
    folder = tmp_path_factory.mktemp("finished")
    return folder / "root"


@pytest.fixture
def root(tiny_run, config, steerlm) -> Path:
    if not tiny_run.exists():
        ended = steerlm("run", config, "--root", tiny_run, "--display", "plain")
        assert ended.code == 0, ended.err
        (tiny_run.parent / "shown.json").write_text(json.dumps(ended))
    return tiny_run
