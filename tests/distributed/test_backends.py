"""The same iteration trained by the backend `local` and by `torchrun` with two processes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from steerlm_core import runtime
from steerlm_core.config import RunConfig
from tests.runs import run_at
from tests.toy.world import build

BEFORE = ("generate", "label", "score_prior", "weigh")


def trained(root: Path, backend: str, processes: int) -> dict[str, Tensor]:
    """Train with a backend; the configuration's engine stays `single`."""
    run = run_at(root, backend=backend)
    train = run.config.train.model_copy(update={"processes": processes})
    runtime.run_step(replace(run, config=run.config.model_copy(update={"train": train})), "train", 0)
    model = next((root / "iterations/000/model").rglob("model.safetensors"))
    return load_file(model)


def small(config: RunConfig) -> RunConfig:
    prompts = config.prompts.model_copy(update={"train": 12, "held_out": 8})
    return config.model_copy(update={"prompts": prompts, "max_iterations": 1})


def test_the_backend_decides_the_engine_and_gives_the_same_model(tmp_path: Path) -> None:
    run = run_at(tmp_path / "one", small(build(tmp_path / "toy")))
    runtime.prepare(run)
    for step in BEFORE:
        runtime.run_step(run, step, 0)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one = trained(tmp_path / "one", "local", 1)
    two = trained(tmp_path / "two", "torchrun", 2)
    assert (tmp_path / "two/iterations/000/train/torchrun.log").is_file()
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() < 1e-4, name
