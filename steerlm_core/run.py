"""The handle on a run: its store, its `run.json`, the platform, and where it says what it does.

A process opens a run once, and hands the handle on. What a run takes from the house above it, who trains and the claim
on its base root, `steerlm_core.runtime` hands in.
"""

from __future__ import annotations

import platform as machine
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

from steerlm_core import __version__, layout
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.dotted import differing
from steerlm_core.errors import RunStateError
from steerlm_core.models.lazy import LazyModels
from steerlm_core.observe.events import EventLog
from steerlm_core.platform import PlatformConfig, find_platform
from steerlm_core.schemas import SCHEMA_VERSION
from steerlm_core.steps.context import Events, Shard, Stage, StepContext, TrainBackend
from steerlm_core.steps.decide import best_policy
from steerlm_core.store import absolute_root, open_store
from steerlm_core.store.inputs import Inputs
from steerlm_core.store.lease import hold
from steerlm_core.store.probe import probe
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.scratch import Scratch
from steerlm_core.store.sealed import seal

_VERSIONED = ("torch", "transformers", "deepspeed", "pyarrow")


class CheckedBackend(TrainBackend, Protocol):
    """A train backend that can tell beforehand whether it will be able to train."""

    def check(self) -> None:
        """Raise what would keep it from training."""


@dataclass(frozen=True)
class Run:
    """One process's hold on a run.

    Attributes:
        store: What lies at its root.
        described: All that stands in its `run.json`.
        config: Its configuration; it may differ from that of `run.json` in what is outside every digest.
        log: Where it says what it does; of a run that was only opened, nobody hears.
        platform_file: The platform file that was asked for.
        train_backend: Who trains; None: nobody does, here.
        claimed: Keeps the run's claim on its base root for as long as a step works; None: no step does, here.
    """

    store: RunStore
    described: Mapping[str, Any]
    config: RunConfig
    log: EventLog
    platform_file: Path | None = None
    train_backend: CheckedBackend | None = None
    claimed: Callable[[Run], AbstractContextManager[None]] | None = None

    @property
    def root(self) -> str:
        """Where it lies."""
        return self.store.root

    @property
    def run_id(self) -> str:
        """Its id."""
        return str(self.described["run_id"])

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where it comes from, if it was begun under a base root: `base_root`, `material`, `started_from`."""
        return dict(self.described["origin"])

    @cached_property
    def base(self) -> RunStore | None:
        """The base root that it was begun under; None where it stands alone."""
        return base_of(self.described)

    @cached_property
    def platform(self) -> PlatformConfig | None:
        """The platform that is in use; None where nobody names one."""
        return find_platform(self.platform_file)

    @cached_property
    def _models(self) -> LazyModels:
        return LazyModels()

    def release_models(self) -> None:
        """Let go of the models that its steps have loaded: the next one needs others, and their memory."""
        self.__dict__.pop("_models", None)

    @cached_property
    def _scratch(self) -> Scratch:
        return Scratch()

    def gate(self, iteration: int, max_iterations: int = 0) -> Literal["run", "stop"]:
        """Whether an iteration is to be done.

        Args:
            iteration: The iteration.
            max_iterations: Most iterations; 0: as the run's configuration says.

        Raises:
            RunStateError: The iteration before has no commit.
        """
        if self.store.exists(layout.DECISION) or iteration >= (max_iterations or self.config.max_iterations):
            return "stop"
        if iteration > 0 and not self.store.exists(layout.commit(iteration - 1)):
            raise RunStateError(
                f"{self.root}: iteration {iteration - 1} has no commit, so iteration {iteration} cannot start. "
                f"`steerlm resume {self.root}` finishes it."
            )
        return "run"

    def context(self, events: Events, iteration: int | None = None) -> StepContext:
        """Build the context of a step; that of an iteration's is at the policy that the iteration starts from."""
        context = StepContext(
            run_id=self.run_id,
            config=self.config,
            store=self.store.telling(events.progress),
            events=events,
            models=self._models,
            scratch=self._scratch.path,
            train_backend=self.train_backend,
            fetch=Inputs(self._scratch.path, progress=events.progress).fetch,
        )
        if iteration is None:
            return context
        policy = best_policy(context, iteration)
        return context.at(Stage(layout.iteration(iteration), policy, ("held_out", "train"), iteration), iteration)

    @contextmanager
    def doing(self, step: str, iteration: int | None = None, shard: Shard | None = None) -> Iterator[StepContext]:
        """Say that a step starts, keep the claim, hold its lease, build its context, and say how it ended."""
        assert self.claimed is not None, "only a run that steerlm_core.runtime has equipped does steps"
        lease = layout.step_lease(step, iteration, (shard.index, shard.count) if shard else None)
        with (
            self.log.step(step, iteration, shard.index if shard else None) as events,
            self.claimed(self),
            hold(self.store, lease, self.config.runtime.lease_seconds, events.warning) as held,
        ):
            yield replace(self.context(events, iteration), check_lease=held.check, shard=shard or Shard())


def open_run(root: str) -> Run:
    """Open the run at a root.

    Raises:
        RunStateError: There is none, it is damaged, or of another schema version.
    """
    return open_or_create_run(open_store(root), None)


def open_or_create_run(store: RunStore, config: RunConfig | None, origin: Mapping[str, Any] | None = None) -> Run:
    """Open the run at a root, or create it from a configuration.

    Args:
        store: The run root.
        config: The configuration; None: the run must exist.
        origin: Where a new run under a base root comes from; see `steerlm_core.retrain.begin`.

    Returns:
        The run; its configuration is the given one, which may differ in what is outside every digest.

    Raises:
        RunStateError: There is no run, or it was made from another configuration or by another release.
        StoreError: The root cannot be reached, or lies where conditional puts are not honoured.
    """
    if config is not None and not store.exists(layout.RUN):
        _create(store, config, origin or {})
    run = find_run(store)
    if run is None:
        raise RunStateError(
            f"{store.root}: holds no run (no {layout.RUN}). `steerlm run CONFIG --root {store.root}` starts one."
        )
    if config is None:
        return run
    if run.config.digest() != config.digest():
        names = ", ".join(differing(run.config.deciding(), config.deciding()))
        raise RunStateError(
            f"{store.root}: holds run '{run.run_id}', made from another configuration, differing in: {names}. "
            f"Use another root, or go on: `steerlm resume {store.root}`."
        )
    return replace(run, config=config)


def find_run(store: RunStore) -> Run | None:
    """Read `run.json`; None where there is none.

    Raises:
        RunStateError: It is damaged, or of another schema version.
    """
    found = store.document_versioned(layout.RUN)
    if found is None:
        return None
    described, _ = found
    if described["schema_version"] != SCHEMA_VERSION:
        raise RunStateError(
            f"{store.root}: written by release {described['versions']['steerlm']} with schema version "
            f"{described['schema_version']}; this is {__version__} with version {SCHEMA_VERSION}. Use that one."
        )
    config = parse_config(described["config"], f"{store.root}/{layout.RUN}")
    return Run(store, described, config, EventLog(described["run_id"], None))


def base_of(described: Mapping[str, Any]) -> RunStore | None:
    """Return the base root that a run was begun under, by its `run.json`; None where it stands alone."""
    base_root = described["origin"].get("base_root")
    return None if base_root is None else open_store(absolute_root(base_root))


def check_given(config: RunConfig) -> list[str]:
    """Check everything that the user gave, and bring nothing large here for it; see `prepare.preflight`."""
    from steerlm_core.steps.prepare import preflight

    with tempfile.TemporaryDirectory(prefix="steerlm-") as scratch:
        return preflight(config, Inputs(Path(scratch), weights=False).fetch)


def _create(store: RunStore, config: RunConfig, origin: Mapping[str, Any]) -> None:
    """Write `run.json`, once everything that the user gave has been looked at."""
    check_given(config)
    probe(store)
    store.create(layout.RUN, seal(_describe(config, origin)))


def _describe(config: RunConfig, origin: Mapping[str, Any]) -> dict[str, Any]:
    versions = {name: version(name) for name in _VERSIONED}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{config.name}-{uuid.uuid4().hex[:8]}",
        "config_digest": config.digest(),
        "seed": config.seed,
        "versions": {"steerlm": __version__, "python": machine.python_version(), **versions},
        "config": config.model_dump(mode="json"),
        "origin": dict(origin),
    }
