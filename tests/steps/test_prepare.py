"""prepare: what a run starts from is made once, in sight, and of what stands in the run nothing is wanted again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from steerlm_core import runtime
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.observe.events import Event, EventLog
from tests.runs import run_at
from tests.tiny import tiny_settings

# What prepare writes, in order, and the user's folder that it is a copy of.
OUTPUTS = {"models/prior": "prior", "models/attribute": "attribute", "models/policy-0": "policy", "prompts": ""}


def _prepare(root: Path, config: RunConfig | None = None) -> list[Event]:
    """Run the step, in a process that is new to the run; returns its events."""
    heard: list[Event] = []
    runtime.prepare(run_at(root, config, log=EventLog("test", None, [heard.append])))
    return heard


@pytest.fixture(scope="module")
def world(toy: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """The toy world, with a folder of its own for each model."""
    source, folder = Path(toy.prompts.source).parent, tmp_path_factory.mktemp("own") / "toy"
    shutil.copytree(source, folder)
    raw = json.loads(toy.model_dump_json().replace(str(source), str(folder)))
    shutil.copytree(folder / "prior", folder / "policy")
    raw["models"]["policy"] = str(folder / "policy")
    return folder, parse_config(raw, "toy")


@pytest.mark.parametrize("standing", [1, 2, 3])
def test_a_model_that_stands_in_the_run_is_not_wanted_again(
    world: tuple[Path, RunConfig], tmp_path: Path, standing: int
) -> None:
    folder, config = world
    root, names = tmp_path / "run", list(OUTPUTS)
    _prepare(root, config)
    manifests = {name: root / name / "manifest.json" for name in names}
    before = {name: path.read_bytes() for name, path in manifests.items()}
    for name in names[standing:]:  # as if it had been interrupted there
        manifests[name].unlink()
    for name in names[:standing]:
        (folder / OUTPUTS[name]).rename(folder / f"away-{OUTPUTS[name]}")
    try:
        _prepare(root)
    finally:
        for name in names[:standing]:
            (folder / f"away-{OUTPUTS[name]}").rename(folder / OUTPUTS[name])
    assert {name: path.read_bytes() for name, path in manifests.items()} == before


def test_what_takes_long_is_told(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(models={"prior": package})
    monkeypatch.setenv("STEERLM_CACHE", str(tmp_path / "cache"))
    heard = _prepare(tmp_path / "run", parse_config(settings, "test"))
    units = [event.fields["unit"] for event in heard if event.kind == "progress"]
    # The model is unpacked, the prompts are tokenised; the attribute model reads texts, then it and policy 0 learn.
    assert list(dict.fromkeys(units)) == ["stages", "prompts", "texts", "steps"]
