"""The same iteration trained by the backend `local` and by `torchrun` with two processes."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from steerlm_core.config import RunConfig
from steerlm_core.observe.events import EventLog
from steerlm_core.run import create_or_open_run
from steerlm_core.session import Session
from steerlm_core.steps.context import RunInfo
from tests.toy.world import build

BEFORE = ("generate", "label", "score_prior", "weigh")


def trained(root: Path, run: RunInfo, backend: str, processes: int) -> dict[str, Tensor]:
    """Train with a backend; the configuration's engine stays `single`."""
    config = run.config.model_copy(
        update={
            "runtime": run.config.runtime.model_copy(update={"backend": backend}),
            "train": run.config.train.model_copy(update={"processes": processes}),
        }
    )
    Session(str(root), RunInfo(run.run_id, config), EventLog("test", None)).step("train", 0)
    model = next((root / "iterations/000/model").rglob("model.safetensors"))
    return load_file(model)


def small(config: RunConfig) -> RunConfig:
    prompts = config.prompts.model_copy(update={"train": 12, "held_out": 8})
    return config.model_copy(update={"prompts": prompts, "max_iterations": 1})


def test_the_backend_decides_the_engine_and_gives_the_same_model(tmp_path: Path) -> None:
    run = create_or_open_run(str(tmp_path / "one"), small(build(tmp_path / "toy")))
    session = Session(str(tmp_path / "one"), run, EventLog("test", None))
    session.prepare()
    for step in BEFORE:
        session.step(step, 0)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one = trained(tmp_path / "one", run, "local", 1)
    two = trained(tmp_path / "two", run, "torchrun", 2)
    assert (tmp_path / "two/iterations/000/train/torchrun.log").is_file()
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() < 1e-4, name
