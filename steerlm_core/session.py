"""One process's hold on a run: its store, what it has loaded, where it says what it does, and who trains.

Only here is the context of a step built.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from steerlm_core.config import RunConfig
from steerlm_core.errors import RunStateError, StoreError
from steerlm_core.manifest import Manifest
from steerlm_core.models.lazy import LazyModels
from steerlm_core.observe.events import EventLog
from steerlm_core.platform_config import PlatformConfig, find_platform
from steerlm_core.retrain.finish import finish as finish_run
from steerlm_core.retrain.promotion import iterations_in_use
from steerlm_core.retrain.running import open_base, renewed
from steerlm_core.steps.context import Events, RunInfo, Shard, Stage, StepContext, TrainBackend
from steerlm_core.steps.decide import DECISION, POLICY_0, best_policy, commit_key
from steerlm_core.store import open_store
from steerlm_core.store.contents import comparison_key, read_contents
from steerlm_core.store.gc import retire
from steerlm_core.store.inputs import Inputs
from steerlm_core.store.lease import hold
from steerlm_core.store.scratch import Scratch

# The steps of an iteration, in their order; label and score_prior do not need each other. A step's module is
# imported when it runs: a pod that only decides needs no torch.
ITERATION_STEPS = ("generate", "label", "score_prior", "weigh", "train", "evaluate", "decide")

_logger = logging.getLogger(__name__)


class Session:
    """One process's hold on a run."""

    def __init__(self, root: str, run: RunInfo, log: EventLog, platform: Path | None = None) -> None:
        """Open the store.

        Args:
            root: The run root.
            run: The run.
            log: Where it says what it does.
            platform: The platform file; None: see `platform_config.find_platform`.
        """
        self.run, self.root, self._log = run, root, log
        self._store = open_store(root)
        self._models = LazyModels()
        self._train_backend = _ChosenBackend(root, platform)
        self._scratch = Scratch()

    def check_backend(self) -> None:
        """Find out before the first step what would keep this process from training in a cluster.

        Raises:
            SteerLMError: No cluster, no right to use it, no image, or a run root that pods cannot reach.
        """
        self._train_backend.check(self.run.config)

    @contextmanager
    def _doing(self, step: str, iteration: int | None = None, shard: Shard | None = None) -> Iterator[StepContext]:
        """Say that a step starts, hold its lease, build its context, and say how it ended."""
        lease = step if iteration is None else f"{iteration:03d}-{step}"
        lease += f"-{shard.index}of{shard.count}" if shard else ""
        base_root = self.run.origin.get("base_root")
        with (
            self._log.step(step, iteration, shard.index if shard else None) as events,
            renewed(open_base(base_root), self.root) if base_root else nullcontext(),
            hold(self._store, lease, self.run.config.runtime.lease_seconds, events.warning) as held,
        ):
            yield replace(self.context(events, iteration or 0), check_lease=held.check, shard=shard or Shard())

    def context(self, events: Events, iteration: int = 0, stage: Stage | None = None) -> StepContext:
        """Build the context of a step."""
        return StepContext(
            run=self.run,
            store=self._store.telling(events.progress),
            events=events,
            models=self._models,
            train_backend=self._train_backend,
            scratch=self._scratch.path,
            iteration=iteration,
            stage=stage,
            fetch=Inputs(self._scratch.path, progress=events.progress).fetch,
        )

    def prepare(self) -> int:
        """Make what the loop starts from; returns the number of parts of the prompt set."""
        with self._doing("prepare") as context:
            manifest: Manifest = _step_module("prepare", self.run.config.runtime.threads).run(context)
        return len(manifest.parts)

    def step(self, name: str, iteration: int, shard: Shard | None = None) -> dict[str, Any]:
        """Run one step of an iteration, or one shard of it; returns its numbers, none while other shards work."""
        with self._doing(name, iteration, shard) as context:
            done = _step_module(name, self.run.config.runtime.threads).run(at_iteration(context, iteration))
        numbers = done.metrics if isinstance(done, Manifest) else done or {}
        if name == "decide":
            self._log.iteration(self.evaluation(iteration), numbers)
            self._retire()
        return dict(numbers)

    def _retire(self) -> None:
        """Remove old iterations' models and candidates, where the configuration says so."""
        keep = self.run.config.runtime
        if keep.keep_models is None and keep.keep_candidates is None:
            return
        contents = read_contents(self._store)
        try:
            in_use = iterations_in_use(contents)
        except StoreError as error:  # a copy of a run may be out of reach of its base root, and shall go on
            _logger.warning("%s: nothing is removed, as what is promoted is not to be known: %s", self.root, error)
            return
        retire(self._store, contents, keep.keep_models, keep.keep_candidates, in_use)

    def evaluation(self, iteration: int) -> dict[str, Any]:
        """Read an iteration's evaluation.json."""
        return self._store.document(f"iterations/{iteration:03d}/evaluation/evaluation.json")

    def gate(self, iteration: int, max_iterations: int) -> Literal["run", "stop"]:
        """Whether an iteration is to be done.

        Raises:
            RunStateError: The iteration before has no commit.
        """
        if self._store.exists(DECISION) or iteration >= max_iterations:
            return "stop"
        if iteration > 0 and not self._store.exists(commit_key(iteration - 1)):
            raise RunStateError(
                f"{self.root}: iteration {iteration - 1} has no commit, so iteration {iteration} cannot start. "
                f"`steerlm resume {self.root}` finishes it."
            )
        return "run"

    def last_commit(self) -> dict[str, Any] | None:
        """The commit of the last iteration that has one; None before the first."""
        last, iteration = None, 0
        while self._store.exists(commit_key(iteration)):
            last = self._store.document(commit_key(iteration))
            iteration += 1
        return last

    def confirm(self) -> dict[str, Any]:
        """Confirm the best policy so far on fresh candidates, and compare it with the promoted one, if there is one."""
        commit = self.last_commit()
        best = commit["best_iteration"] if commit else None
        policy = POLICY_0 if best is None else f"iterations/{best:03d}/model"
        threads = self.run.config.runtime.threads
        with self._doing("confirm") as context:
            confirm_step = _step_module("confirm", threads)
            confirmation = dict(confirm_step.run(context.at(confirm_step.stage_of(policy, best))))
            if best is not None and self.run.origin.get("started_from"):
                _step_module("compare", threads).run(context, best)
        return confirmation

    def finish(self, max_iterations: int) -> dict[str, Any]:
        """Promote the run's model or not; only a run under a base root has anything to finish."""
        if "base_root" not in self.run.origin:
            return {"promoted": False, "words": "Not promoted: the run stands alone, under no base root."}
        outcome, comparison = self.outcome(max_iterations), None
        if outcome["best_iteration"] is not None and self.run.origin["started_from"]:
            comparison = self._store.document(comparison_key(outcome["best_iteration"]))
        promoted, words = finish_run(self.root, dict(self.run.origin), outcome, comparison)
        return {"promoted": promoted, "words": words}

    def outcome(self, max_iterations: int) -> dict[str, Any]:
        """How the loop ended: the decision, or that the iterations allowed are used up."""
        commit = self.last_commit()
        if commit is None:
            raise RunStateError(f"{self.root}: no iteration has been committed; max_iterations is {max_iterations}.")
        if commit["stop"]:
            return commit
        last = f"It was the last of the {max_iterations} iterations allowed; raise max_iterations to go on."
        return {**commit, "kind": "max_iterations", "reason": f"{commit['reason']} {last}"}


def with_backend(run: RunInfo, backend: str | None) -> RunInfo:
    """Return the run with its training done elsewhere; None: where its configuration says."""
    if backend is None:
        return run
    runtime = run.config.runtime.model_copy(update={"backend": backend})
    return replace(run, config=run.config.model_copy(update={"runtime": runtime}))


def at_iteration(context: StepContext, iteration: int) -> StepContext:
    """Return the context at the stage of an iteration."""
    policy = best_policy(context, iteration)
    return context.at(Stage(f"iterations/{iteration:03d}", policy, ("held_out", "train"), iteration), iteration)


class _ChosenBackend:
    """The `TrainBackend` that the configuration or the platform asks for, imported when there is something to train."""

    def __init__(self, root: str, platform: Path | None) -> None:
        """Nothing is chosen yet."""
        self._root, self._file = root, platform

    def check(self, config: RunConfig) -> None:
        """Find the cluster, where training is to happen in one."""
        if self._name(config) == "pytorchjob":
            _ = self._cluster

    def train(self, context: StepContext) -> Manifest:
        """Have the iteration of the context trained."""
        from steerlm_core.steps.train import LocalBackend, TorchrunBackend

        name = self._name(context.config)
        if name == "pytorchjob":
            return self._cluster.train(context)
        return (LocalBackend() if name == "local" else TorchrunBackend()).train(context)

    def _name(self, config: RunConfig) -> str:
        if config.runtime.backend:
            return config.runtime.backend
        if self._platform and "train_job" in self._platform.model_fields_set:
            return "pytorchjob"
        return "local" if config.train.engine == "single" else "torchrun"

    @cached_property
    def _platform(self) -> PlatformConfig | None:
        return find_platform(self._file)

    @cached_property
    def _cluster(self) -> TrainBackend:
        from steerlm_core.kube.backend import PyTorchJobBackend

        return PyTorchJobBackend(self._platform or PlatformConfig(), self._root)


def _step_module(name: str, threads: int) -> ModuleType:
    """Import a step; what it computes with is set up only if it computes."""
    module = import_module(f"steerlm_core.steps.{name}")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads or os.cpu_count() or 1)
    return module
