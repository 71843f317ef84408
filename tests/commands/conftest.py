"""A tiny configuration, and a run of it that the command itself has made."""

import json
import shutil
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


@pytest.fixture
def tiny_run(once, config, steerlm) -> Path:
    """A folder with the root of a run of two iterations, made by the command itself, and what it showed."""

    def run(folder: Path) -> None:
        ended = steerlm("run", config, "--root", folder / "root", "--display", "plain")
        assert ended.code == 0, ended.err
        (folder / "shown.json").write_text(json.dumps(ended))

    return once.made("tiny-run", run)


@pytest.fixture
def root(tiny_run, tmp_path) -> Path:
    """The same run, to be changed."""
    return Path(shutil.copytree(tiny_run / "root", tmp_path / "finished"))
