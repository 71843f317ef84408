"""Builds the context of a step and runs it: what the command line and the Kubeflow components call.

A `Session` is one process's hold on a run: its store, what it has loaded, where it says what it does.
The functions below it open a session for one step: a pod of a pipeline knows nothing else.
"""

from __future__ import annotations

import os
import platform
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from steerlm_core import __version__
from steerlm_core.config import RunConfig, load_config, parse_config
from steerlm_core.errors import ConfigError, RunStateError
from steerlm_core.manifest import Manifest
from steerlm_core.models.loading import ModelCache
from steerlm_core.observe.event_store import event_sink
from steerlm_core.observe.events import EventLog
from steerlm_core.schemas import SCHEMA_VERSION
from steerlm_core.sealed import seal, unseal
from steerlm_core.steps import confirm as confirm_step
from steerlm_core.steps import decide, evaluate, generate, label, score_prior, train, weigh
from steerlm_core.steps import prepare as prepare_step
from steerlm_core.steps.context import Events, RunInfo, Shard, Stage, StepContext, TrainBackend
from steerlm_core.store import open_store
from steerlm_core.store.contents import read_contents
from steerlm_core.store.gc import retire
from steerlm_core.store.inputs import Inputs
from steerlm_core.store.lease import hold
from steerlm_core.store.run_store import RunStore

RUN = "run.json"
_VERSIONED = ("torch", "transformers", "deepspeed", "pyarrow")

# The steps of an iteration, in their order; label and score_prior do not need each other.
ITERATION_STEPS: Mapping[str, Callable[[StepContext], Manifest | dict[str, Any] | None]] = {
    "generate": generate.run,
    "label": label.run,
    "score_prior": score_prior.run,
    "weigh": weigh.run,
    "train": train.run,
    "evaluate": evaluate.run,
    "decide": decide.run,
}


def create_or_open_run(root: str, config: RunConfig | None) -> RunInfo:
    """Open the run at a root, or create it from a configuration.

    Args:
        root: The run root.
        config: The configuration; None: the run must exist.

    Returns:
        The run; its configuration is the given one, which may differ in what is outside every digest.

    Raises:
        RunStateError: There is no run, or it was made from another configuration or by another release.
        StoreError: The root cannot be reached, or lies where conditional puts are not honoured.
    """
    store = open_store(root)
    if not store.exists(RUN):
        if config is None:
            raise RunStateError(f"{root}: holds no run (no {RUN}). `steerlm run CONFIG --root {root}` starts one.")
        with tempfile.TemporaryDirectory(prefix="steerlm-") as scratch:
            prepare_step.preflight(config, Inputs(Path(scratch)).fetch)
        store.probe()
        store.create(RUN, seal(_describe(config)))
    run = open_run(store)
    if config is None:
        return run
    if run.config.digest() != config.digest():
        raise RunStateError(
            f"{root}: holds run '{run.run_id}', made from another configuration, differing in: "
            f"{', '.join(_differences(run.config, config))}. Use another root, or go on: `steerlm resume {root}`."
        )
    return RunInfo(run.run_id, config)


def open_run(store: RunStore) -> RunInfo:
    """Read `run.json`.

    Raises:
        RunStateError: It is missing, damaged, or of another schema version.
    """
    described = unseal(store.read(RUN), store.url(RUN))
    if described["schema_version"] != SCHEMA_VERSION:
        raise RunStateError(
            f"{store.root}: written by release {described['versions']['steerlm']} with schema version "
            f"{described['schema_version']}; this is {__version__} with version {SCHEMA_VERSION}. Use that one."
        )
    return RunInfo(described["run_id"], parse_config(described["config"], f"{store.root}/{RUN}"))


def _describe(config: RunConfig) -> dict[str, Any]:
    versions = {name: version(name) for name in _VERSIONED}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{config.name}-{uuid.uuid4().hex[:8]}",
        "config_digest": config.digest(),
        "seed": config.seed,
        "versions": {"steerlm": __version__, "python": platform.python_version(), **versions},
        "config": config.model_dump(mode="json"),
    }


def _differences(ours: RunConfig, theirs: RunConfig) -> list[str]:
    def flat(value: Any, path: str = "") -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            return {path: value}
        return {k: v for key, each in value.items() for k, v in flat(each, f"{path}.{key}".lstrip(".")).items()}

    a, b = flat(ours.deciding()), flat(theirs.deciding())
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))


class Session:
    """One process's hold on a run."""

    def __init__(self, root: str, run: RunInfo, log: EventLog) -> None:
        """Open the store and set the threads."""
        self.run, self.root, self._log = run, root, log
        self._store, self._models = open_store(root), ModelCache()
        self._scratch = tempfile.TemporaryDirectory(prefix="steerlm-")
        torch.set_num_threads(run.config.runtime.threads or os.cpu_count() or 1)

    @contextmanager
    def _doing(self, step: str, iteration: int | None = None, shard: Shard | None = None) -> Iterator[StepContext]:
        """Say that a step starts, hold its lease, build its context, and say how it ended."""
        lease = step if iteration is None else f"{iteration:03d}-{step}"
        lease += f"-{shard.index}of{shard.count}" if shard else ""
        with (
            self._log.step(step, iteration, shard.index if shard else None) as events,
            hold(self._store, lease, self.run.config.runtime.lease_seconds, events.warning) as held,
        ):
            yield replace(self.context(events, iteration or 0), check_lease=held.check, shard=shard or Shard())

    def context(self, events: Events, iteration: int = 0, stage: Stage | None = None) -> StepContext:
        """Build the context of a step."""
        return StepContext(
            run=self.run,
            store=self._store,
            events=events,
            models=self._models,
            train_backend=_train_backend(self.run.config),
            scratch=Path(self._scratch.name),
            iteration=iteration,
            stage=stage,
            fetch=Inputs(Path(self._scratch.name)).fetch,
        )

    def prepare(self) -> None:
        """Make what the loop starts from."""
        with self._doing("prepare") as context:
            prepare_step.run(context)

    def step(self, name: str, iteration: int, shard: Shard | None = None) -> dict[str, Any]:
        """Run one step of an iteration, or one shard of it; returns its numbers, none while other shards work."""
        with self._doing(name, iteration, shard) as context:
            stage = Stage(
                f"iterations/{iteration:03d}", decide.best_policy(context, iteration), ("held_out", "train"), iteration
            )
            done = ITERATION_STEPS[name](context.at(stage, iteration))
        numbers = done.metrics if isinstance(done, Manifest) else done or {}
        if name == "decide":
            self._log.iteration(self.evaluation(iteration), numbers)
            self._retire()
        return dict(numbers)

    def _retire(self) -> None:
        """Remove old iterations' models and candidates, where the configuration says so."""
        keep = self.run.config.runtime
        if keep.keep_models is not None or keep.keep_candidates is not None:
            retire(self._store, read_contents(self._store), keep.keep_models, keep.keep_candidates)

    def evaluation(self, iteration: int) -> dict[str, Any]:
        """Read an iteration's evaluation.json."""
        return self._document(f"iterations/{iteration:03d}/evaluation/evaluation.json")

    def _document(self, key: str) -> dict[str, Any]:
        return unseal(self._store.read(key), self._store.url(key))

    def gate(self, iteration: int, max_iterations: int) -> Literal["run", "stop"]:
        """Whether an iteration is to be done.

        Raises:
            RunStateError: The iteration before has no commit.
        """
        if self._store.exists(decide.DECISION) or iteration >= max_iterations:
            return "stop"
        if iteration > 0 and not self._store.exists(decide.commit_key(iteration - 1)):
            raise RunStateError(
                f"{self.root}: iteration {iteration - 1} has no commit, so iteration {iteration} cannot start. "
                f"`steerlm resume {self.root}` finishes it."
            )
        return "run"

    def last_commit(self) -> dict[str, Any] | None:
        """The commit of the last iteration that has one; None before the first."""
        last, iteration = None, 0
        while self._store.exists(decide.commit_key(iteration)):
            last = self._document(decide.commit_key(iteration))
            iteration += 1
        return last

    def confirm(self) -> dict[str, Any]:
        """Confirm the best policy so far on fresh candidates."""
        commit = self.last_commit()
        best = commit["best_iteration"] if commit else None
        policy = decide.POLICY_0 if best is None else f"iterations/{best:03d}/model"
        with self._doing("confirm") as context:
            return confirm_step.run(context.at(confirm_step.stage_of(policy, best)))

    def outcome(self, max_iterations: int) -> dict[str, Any]:
        """How the loop ended: the decision, or that the iterations allowed are used up."""
        commit = self.last_commit()
        if commit is None:
            raise RunStateError(f"{self.root}: no iteration has been committed; max_iterations is {max_iterations}.")
        if commit["stop"]:
            return commit
        last = f"It was the last of the {max_iterations} iterations allowed; raise max_iterations to go on."
        return {**commit, "kind": "max_iterations", "reason": f"{commit['reason']} {last}"}


def _train_backend(config: RunConfig) -> TrainBackend:
    """Where this process has its training done."""
    backend = config.runtime.backend or ("local" if config.train.engine == "single" else "torchrun")
    return train.LocalBackend() if backend == "local" else train.TorchrunBackend()


def prepare(root: str, config: dict[str, Any] | str) -> None:
    """Create or open the run at `root` and run prepare.

    Args:
        root: The run root.
        config: The configuration as a mapping, or the path of a YAML file.
    """
    given = load_config(config) if isinstance(config, str) else parse_config(config, "config")
    run = create_or_open_run(root, given)
    Session(root, run, _log(root, run)).prepare()


def run_step(name: str, root: str, iteration: int) -> dict[str, Any]:
    """Run one step of an iteration in this process; returns small numbers for a person to look at.

    Raises:
        ConfigError: There is no such step.
    """
    if name not in ITERATION_STEPS:
        raise ConfigError(f"unknown step '{name}'; steps of an iteration: {', '.join(ITERATION_STEPS)}.")
    return _session(root).step(name, iteration)


def gate(root: str, iteration: int, max_iterations: int) -> Literal["run", "stop"]:
    """Whether an iteration is to be done; see `Session.gate`."""
    return _session(root).gate(iteration, max_iterations)


def confirm(root: str) -> dict[str, Any]:
    """Confirm the best policy of the run on fresh candidates."""
    return _session(root).confirm()


def _session(root: str) -> Session:
    run = create_or_open_run(root, None)
    return Session(root, run, _log(root, run))


def _log(root: str, run: RunInfo) -> EventLog:
    return EventLog(run.run_id, event_sink(open_store(root)))
