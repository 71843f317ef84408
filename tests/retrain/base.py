"""Base roots in tests: configurations, and runs that begin under one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from steerlm_core import layout
from steerlm_core.config import RunConfig, load_config, parse_config
from steerlm_core.retrain import running
from steerlm_core.retrain.begin import begin
from steerlm_core.run import Run
from steerlm_core.store import open_store
from tests.runs import run_at

Said = Callable[..., str]


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    return parse_config({**config.model_dump(mode="json"), **changes}, "test")


def written(config: RunConfig, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(config.model_dump_json(exclude_none=True))  # JSON is YAML
    return path


def begin_run(base: str, config: RunConfig, workflow: str, *ended: str) -> Run:
    """Begin a run in a Workflow while some others have ended, as the pipeline's first step does."""
    job = running.Job(f"job-of-{workflow}", running.WorkflowName(workflow, "team-a"))
    begun = begin(running.open_base(base), config, job, lambda other: other.name in ended)
    assert begun.store is not None
    return run_at(begun.store.root, begun.config, begun.origin)


def noted(base: str) -> dict[str, Any]:
    return open_store(base).document(layout.RUNNING)


def config_file(world: Path, tmp_path: Path, **prompts: Any) -> Path:
    raw = yaml.safe_load((world / "config.yaml").read_text())
    raw["prompts"] |= prompts
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def runs_in(bucket: str) -> set[str]:
    return {f"{bucket}/runs/{found.key.split('/')[1]}" for found in open_store(bucket).listing("runs/")}


def begin_in_bucket(
    world: Path, bucket: str, job: str, workflow: str = "", ended: running.Ended = lambda _: None
) -> Any:
    who = running.Job(job, running.WorkflowName(workflow, "team-a" if workflow else ""))
    return begin(running.open_base(bucket), load_config(world / "config.yaml"), who, ended)
