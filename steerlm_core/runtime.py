"""One step of a run, or the whole loop in one process: what the command line and the components call.

prepare ─► [ generate ─► label, score_prior ─► weigh ─► train ─► evaluate ─► decide ]* ─► confirm ─► finish

Here a run gets what it takes from above: who trains, and the claim on its base root.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.errors import ConfigError, RunStateError, StoreError
from steerlm_core.observe.display import Display
from steerlm_core.observe.display_mode import make_display
from steerlm_core.observe.watch import watched
from steerlm_core.retrain import running
from steerlm_core.retrain.finish import finish as finish_run
from steerlm_core.retrain.promotion import iterations_in_use
from steerlm_core.run import Run, open_run
from steerlm_core.steps.context import Shard, StepContext, TrainBackend
from steerlm_core.store.contents import read_contents
from steerlm_core.store.gc import retire
from steerlm_core.store.manifest import Manifest

_logger = logging.getLogger(__name__)


@contextmanager
def opened(root: str, backend: str | None = None, platform: Path | None = None) -> Iterator[Run]:
    """Open a run for one step, in a process of its own; it stays open for readers when what it said is written.

    Args:
        root: The run root.
        backend: Where training happens; None: where the run's configuration says.
        platform: The platform file; None: see `find_platform`.
    """
    run = open_run(root)
    with make_display("auto") as display, at_work(run, display, backend, platform) as working:
        yield working


@contextmanager
def at_work(run: Run, display: Display, backend: str | None = None, platform: Path | None = None) -> Iterator[Run]:
    """Hand out a run that does steps under a display; what was said is written when this ends."""
    with watched(run.store, run.run_id, run.config, display) as log:
        yield equip(replace(run, log=log), backend, platform)


def equip(run: Run, backend: str | None = None, platform: Path | None = None) -> Run:
    """Return the run with what it takes from above, as `opened` describes it."""
    if backend is not None:
        runtime = run.config.runtime.model_copy(update={"backend": backend})
        run = replace(run, config=run.config.model_copy(update={"runtime": runtime}))
    run = replace(run, platform_file=platform)
    return replace(run, train_backend=_ChosenBackend(run), claimed=_claimed)


def run_loop(run: Run, max_iterations: int | None = None) -> dict[str, Any]:
    """Run, or go on with, the loop until it stops; returns how it ended.

    The same steps as the pipeline's, models loaded once. What is done already is not done again, so this is also how an
    interrupted run goes on.

    Args:
        run: The run, at work.
        max_iterations: Overrides the configuration's.

    Returns:
        The last commit, or the same with kind `max_iterations` when those are used up.
    """
    limit = max_iterations or run.config.max_iterations
    prepare(run)
    for iteration in range(limit):
        if run.gate(iteration, limit) == "stop":
            break
        for name in layout.ITERATION_STEPS:
            run_step(run, name, iteration)
    confirm(run)
    return outcome(run, limit)


def prepare(run: Run, shards: int = 1) -> list[str]:
    """Make what the loop starts from; returns the shards, as text, that sampling and scoring are split over.

    Where training is to happen in a cluster, what would keep it from that is found out first: hours later is too late.

    Args:
        run: The run.
        shards: So many, but no more than there are parts.
    """
    assert run.train_backend is not None
    run.train_backend.check()
    with run.doing("prepare") as context:
        manifest: Manifest = _step_module("prepare", run).run(context)
    count = max(1, min(shards, len(manifest.parts)))
    return [str(Shard(index, count)) for index in range(count)]


def run_step(run: Run, name: str, iteration: int, shard: str = "0/1") -> dict[str, Any]:
    """Run one step of an iteration, or one shard of it; returns its numbers, none while other shards work.

    Args:
        run: The run.
        name: The step.
        iteration: Number of the iteration.
        shard: Which shard of the step this is, as text; see `Shard.parse`.

    Raises:
        ConfigError: There is no such step, or no such shard.
    """
    part = Shard.parse(shard)
    if name not in layout.ITERATION_STEPS:
        raise ConfigError(f"unknown step '{name}'; steps of an iteration: {', '.join(layout.ITERATION_STEPS)}.")
    with run.doing(name, iteration, part if part.count > 1 else None) as context:
        done = _step_module(name, run).run(context)
    numbers = done.metrics if isinstance(done, Manifest) else done or {}
    if name == "decide":
        run.log.iteration(run.store.document(layout.evaluation_document(layout.evaluation(iteration))), numbers)
        _retire(run)
    return dict(numbers)


def _retire(run: Run) -> None:
    """Remove old iterations' models and candidates, where the configuration says so."""
    keep = run.config.runtime
    if keep.keep_models is None and keep.keep_candidates is None:
        return
    contents = read_contents(run.store)
    try:
        in_use = iterations_in_use(run.base, contents) if run.base else ()
    except StoreError as error:  # a copy of a run may be out of reach of its base root, and shall go on
        _logger.warning("%s: nothing is removed, as what is promoted is not to be known: %s", run.root, error)
        return
    retire(run.store, contents, keep.keep_models, keep.keep_candidates, in_use)


def confirm(run: Run) -> dict[str, Any]:
    """Confirm the best policy so far on fresh candidates, and compare it with the promoted one, if there is one."""
    commit = _last_commit(run)
    best = commit["best_iteration"] if commit else None
    with run.doing("confirm") as context:
        step = _step_module("confirm", run)
        confirmation = dict(step.run(context.at(step.stage_of(best))))
        if best is not None and run.origin.get("started_from"):
            _step_module("compare", run).run(context, best)
    return confirmation


def finish(run: Run, max_iterations: int = 0) -> dict[str, Any]:
    """Promote the run's model or not; only a run under a base root has anything to finish.

    Args:
        run: The run.
        max_iterations: Most iterations; 0: as the run's configuration says.
    """
    if run.base is None:
        return {"promoted": False, "words": "Not promoted: the run stands alone, under no base root."}
    ended, comparison = outcome(run, max_iterations), None
    if ended["best_iteration"] is not None and run.origin["started_from"]:
        comparison = run.store.document(layout.comparison_document(layout.confirmation(ended["best_iteration"])))
    promoted, words = finish_run(run, ended, comparison)
    return {"promoted": promoted, "words": words}


def outcome(run: Run, max_iterations: int = 0) -> dict[str, Any]:
    """How the loop ended: the decision, or that the iterations allowed are used up."""
    commit, limit = _last_commit(run), max_iterations or run.config.max_iterations
    if commit is None:
        raise RunStateError(f"{run.root}: no iteration has been committed; max_iterations is {limit}.")
    if commit["stop"]:
        return commit
    last = f"It was the last of the {limit} iterations allowed; raise max_iterations to go on."
    return {**commit, "kind": "max_iterations", "reason": f"{commit['reason']} {last}"}


def _last_commit(run: Run) -> dict[str, Any] | None:
    """The commit of the last iteration that has one; None before the first."""
    last, iteration = None, 0
    while run.store.exists(layout.commit(iteration)):
        last = run.store.document(layout.commit(iteration))
        iteration += 1
    return last


def _claimed(run: Run) -> AbstractContextManager[None]:
    """Keep the claim of a run on its base root, if it has one."""
    return running.renewed(run.base, run.root) if run.base else nullcontext()


def _step_module(name: str, run: Run) -> ModuleType:
    """Import a step when it runs: a pod that only decides needs no torch. What computes is set up only then."""
    module = import_module(f"steerlm_core.steps.{name}")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(run.config.runtime.threads or os.cpu_count() or 1)
    return module


class _ChosenBackend:
    """The `TrainBackend` that the configuration or the platform asks for, imported when there is something to train."""

    def __init__(self, run: Run) -> None:
        """Nothing is chosen yet."""
        self._run = run

    def check(self) -> None:
        """Find the cluster, where training is to happen in one.

        Raises:
            SteerLMError: No cluster, no right to use it, no image, or a run root that pods cannot reach.
        """
        if self._name(self._run.config) == "pytorchjob":
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
        platform = self._run.platform
        if platform and "train_job" in platform.model_fields_set:
            return "pytorchjob"
        return "local" if config.train.engine == "single" else "torchrun"

    @cached_property
    def _cluster(self) -> TrainBackend:
        from steerlm_core.kube.launch.backend import PyTorchJobBackend

        return PyTorchJobBackend(self._run)
