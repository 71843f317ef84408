"""Where training happens is no part of what a run is: the same run goes on elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerlm_core import runtime
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import ConfigError, RunStateError
from steerlm_core.kube.job.failure_classes import TrainJobError
from steerlm_core.platform import FILE, INLINE
from steerlm_core.steps.train import LocalBackend, TorchrunBackend
from steerlm_core.store import open_store
from tests.kube.fake_api import FakeApi
from tests.runs import loop_at, run_at

JOBS = {"image": {"name": "registry/steerlm:1"}, "train_job": {"nodes": 2}}


def changed(train: dict[str, Any] | None = None, runtime: dict[str, Any] | None = None) -> RunConfig:
    return parse_config(
        {
            "attributes": [{"name": "verbosity"}],
            "raters": {"verbosity": "word_count"},
            "models": {"prior": "embedded:stories"},
            "train": train or {},
            "runtime": runtime or {},
        },
        "test",
    )


def test_a_run_goes_on_with_other_processes_and_another_backend(tmp_path: Path) -> None:
    run = run_at(tmp_path, changed())
    again = changed(
        {"engine": "deepspeed", "processes": 2, "zero_stage": 3, "checkpoint_seconds": 5.0}, {"backend": "torchrun"}
    )
    assert run_at(tmp_path, again).run_id == run.run_id


def test_a_run_does_not_go_on_with_another_learning_rate(tmp_path: Path) -> None:
    run_at(tmp_path, changed())
    with pytest.raises(RunStateError, match=r"differing in: train\.learning_rate\. "):
        run_at(tmp_path, changed({"learning_rate": 0.5, "processes": 2}))


class Job:
    def __init__(self, run: object) -> None:
        """Find everything in order."""

    def train(self, context: object) -> str:
        return "pytorchjob"


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends that say their name and do nothing."""
    for name in (FILE, INLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(LocalBackend, "train", lambda self, context: "local")
    monkeypatch.setattr(TorchrunBackend, "train", lambda self, context: "torchrun")
    monkeypatch.setattr("steerlm_core.kube.launch.backend.PyTorchJobBackend", Job)


@pytest.mark.usefixtures("backends")
@pytest.mark.parametrize("given", ["file", FILE, INLINE])
@pytest.mark.parametrize(
    ("platform", "train", "backend", "used"),
    [
        (JOBS, {}, None, "pytorchjob"),
        ({"train_job": {}}, {"engine": "deepspeed"}, None, "pytorchjob"),
        (JOBS, {}, "local", "local"),
        ({"image": {"name": "registry/steerlm:1"}}, {}, None, "local"),
        ({"steps": {}}, {"engine": "deepspeed"}, None, "torchrun"),
        ({}, {}, "pytorchjob", "pytorchjob"),
    ],
)
def test_a_platform_with_training_jobs_trains_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, platform: Any, train: Any, backend: Any, used: str
) -> None:
    file = tmp_path / "platform.yaml"
    file.write_text(json.dumps(platform))
    if given != "file":
        monkeypatch.setenv(given, str(file) if given == FILE else json.dumps(platform))
    config = changed(train, {"backend": backend})
    run = run_at(tmp_path / "run", config, platform=file if given == "file" else None)
    with run.log.step("train", 0) as events:
        context = run.context(events)
        assert context.train_backend.train(context) == used


@pytest.mark.usefixtures("backends")
@pytest.mark.parametrize(("train", "used"), [({}, "local"), ({"engine": "deepspeed"}, "torchrun")])
def test_without_a_platform_training_happens_here(tmp_path: Path, train: Any, used: str) -> None:
    run = run_at(tmp_path, changed(train))
    with run.log.step("train", 0) as events:
        context = run.context(events)
        assert context.train_backend.train(context) == used


def test_a_run_root_that_pods_cannot_reach_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "platform.yaml").write_text(json.dumps(JOBS))
    root = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"cannot reach this run root.*--backend local"):
        loop_at(root, changed(), platform=tmp_path / "platform.yaml")
    assert not (root / "prompts").exists()


def test_a_permission_that_is_missing_is_named_by_the_pipelines_prepare(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MayNot(FakeApi):
        def can_i(self, *of: str, **more: str) -> bool:
            return False

    monkeypatch.setattr("steerlm_core.kube.launch.backend.connect", lambda namespace: MayNot())
    monkeypatch.setenv(INLINE, json.dumps(JOBS))
    run_at(bucket, changed())
    with pytest.raises(TrainJobError, match="this account may not create"):
        runtime.prepare(run_at(bucket))
    assert not open_store(bucket).exists("prompts/manifest.json")
