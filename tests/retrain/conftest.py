"""The toy world's configuration, base roots, and one that has a promoted run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from steerlm_core.config import RunConfig, parse_config
from tests.in_process import Steerlm
from tests.retrain.base import Said, written


@pytest.fixture(scope="session")
def config(toy: RunConfig) -> RunConfig:
    """One iteration of the toy world, whose policy is the prior."""
    raw = toy.model_dump(mode="json", exclude_none=True)
    raw["models"]["policy"] = raw["models"]["prior"]
    return parse_config({**raw, "max_iterations": 1, "raters": {}}, "test")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return str(tmp_path / "base")


@pytest.fixture(scope="session")
def retrained(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base root that was given as a relative path, with one promoted run."""
    from typer.testing import CliRunner

    from steerlm_core.cli import app

    folder = tmp_path_factory.mktemp("retrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = CliRunner().invoke(app, ["retrain", str(written(config, folder)), "./base/"])
    assert ended.exit_code == 0, ended.output
    return folder / "base"


@pytest.fixture(scope="session")
def world(toy: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy world's small configuration in config.yaml."""
    folder = tmp_path_factory.mktemp("world")
    raw = toy.model_dump(mode="json", exclude_none=True)
    raw |= {"max_iterations": 1, "raters": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    return folder


@pytest.fixture
def said(steerlm: Steerlm) -> Said:
    """What a command that ends well prints."""

    def run(*words: object) -> str:
        ended = steerlm(*words)
        assert ended.code == 0, ended.err
        return ended.out

    return run
