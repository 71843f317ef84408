"""Runs one step of a run in a process of its own: what the command line and the Kubeflow components call."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from steerlm_core.config import RunConfig, load_config, parse_config
from steerlm_core.dotted import differing
from steerlm_core.errors import ConfigError
from steerlm_core.observe.display import make_display
from steerlm_core.observe.watch import watched
from steerlm_core.retrain import running
from steerlm_core.retrain.begin import begin as begin_run
from steerlm_core.run_root import create_or_open_run, open_run
from steerlm_core.session import ITERATION_STEPS, Session, with_backend
from steerlm_core.steps.context import Shard
from steerlm_core.store import open_store
from steerlm_core.store.contents import RUN
from steerlm_core.store.inputs import Inputs


def begin(
    root: str,
    base_root: str,
    config: dict[str, Any] | None,
    config_uri: str,
    job: str,
    max_iterations: int = 0,
    room: int = 0,
    here: bool = False,
) -> str:
    """Choose the run of a pipeline, and create it if it is new.

    Args:
        root: The run root; empty: a run under `base_root`.
        base_root: Where runs follow each other; empty: `root` says it all.
        config: The configuration; None: `config_uri` says where it is, or the run at `root` exists.
        config_uri: A YAML file, here or in a bucket.
        job: Id of the pipeline run, or of the process.
        max_iterations: Most iterations; 0: as the run's configuration says.
        room: Iterations that the pipeline was compiled for; 0: any number.
        here: Whether this process does the whole run, and not only its beginning.

    Returns:
        The run root; empty where there is nothing new to train on.

    Raises:
        ConfigError: The arguments do not go together, or the run wants more iterations than there is room for.
    """
    given = _given_config(config, config_uri)
    if bool(root) == bool(base_root):
        raise ConfigError(f"root is '{root}' and base_root is '{base_root}': give one of the two.")
    if root:
        _open(root, given, max_iterations, room)
        return root
    if given is None:
        raise ConfigError("base_root needs a configuration: give config or config_uri.")
    _check_room(max_iterations, given, room)  # before the base root is claimed
    workflow, ended = _workflow()
    with running.released_on_failure(running.open_base(base_root), job):
        begun = begin_run(base_root, given, running.Job(job, workflow, here), ended)
        print(begun.words)
        if begun.root:
            kept = create_or_open_run(begun.root, begun.config, begun.origin).config
            _check_room(max_iterations, kept, room)
            if begun.config is None:  # gone on with; which policy a run starts from is not for the user to say
                _say_what_stays(begun.root, kept, given.model_copy(update={"models": kept.models}), max_iterations)
    return begun.root


def _open(root: str, given: RunConfig | None, max_iterations: int, room: int) -> None:
    """Open or create a run, and say what it will not take from `given`."""
    store = open_store(root)
    kept = open_run(store).config if store.exists(RUN) else given
    if kept is not None:
        _check_room(max_iterations, kept, room)
    create_or_open_run(root, given)
    if given is not None and kept is not None:
        _say_what_stays(root, kept, given, max_iterations)


def _say_what_stays(root: str, kept: RunConfig, given: RunConfig, max_iterations: int) -> None:
    """Name the settings that the steps of a run, which see `run.json` alone, will not take from those given."""
    names = differing(kept.model_dump(mode="json"), given.model_dump(mode="json"))
    if names := [name for name in names if not (name == "max_iterations" and max_iterations)]:
        print(f"{root}: the run began with other settings, and keeps those it has, of: {', '.join(names)}.")


def _check_room(max_iterations: int, config: RunConfig, room: int) -> None:
    """Refuse what the pipeline would break off without a word."""
    wanted = max_iterations or config.max_iterations
    if room and wanted > room:
        raise ConfigError(
            f"max_iterations: {wanted} is more than the {room} that the pipeline was compiled for. Lower it (the "
            f"pipeline's argument max_iterations goes before the configuration), or make room: `steerlm compile "
            f"--max-iterations {wanted}`, and submit and upload alike."
        )


def _given_config(config: dict[str, Any] | None, uri: str) -> RunConfig | None:
    if config and uri:
        raise ConfigError(f"config and config_uri ('{uri}') are both given: give one of the two.")
    if config:
        return parse_config(config, "config")
    if not uri:
        return None
    with tempfile.TemporaryDirectory(prefix="steerlm-") as folder:
        return load_config(Inputs(Path(folder)).fetch(uri))


def _workflow() -> tuple[running.WorkflowName, running.Ended]:
    """This pod's Workflow, and how to ask whether another has ended; neither exists outside of a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return running.WorkflowName(), lambda _: None
    from steerlm_core.kube.api.client import own_cluster
    from steerlm_core.kube.api.own_pod import own_workflow, workflow_has_ended

    mine = own_workflow()
    name = running.WorkflowName(mine.name, mine.namespace, own_cluster()) if mine else running.WorkflowName()
    return name, lambda other: workflow_has_ended(other.name, other.namespace, other.cluster)


def prepare(root: str, shards: int = 1) -> list[int]:
    """Make what the loop starts from; returns the shards that sampling and scoring are split over.

    Where training is to happen in a cluster, what would keep it from that is found out first: hours later is too late.

    Args:
        root: The run root.
        shards: So many, but no more than there are parts.
    """
    with _session(root) as session:
        session.check_backend()
        parts = session.prepare()
    return list(range(max(1, min(shards, parts))))


def run_step(
    name: str,
    root: str,
    iteration: int,
    shard: int = 0,
    shards: int = 1,
    backend: str | None = None,
    platform: Path | None = None,
) -> dict[str, Any]:
    """Run one step of an iteration in this process; returns small numbers for a person to look at.

    Args:
        name: The step.
        root: The run root.
        iteration: Number of the iteration.
        shard: Which shard of the step this is.
        shards: Shards that the step is split over.
        backend: Where training happens; None: where the run's configuration says.
        platform: The platform file; None: see `platform_config.find_platform`.

    Raises:
        ConfigError: There is no such step.
    """
    if name not in ITERATION_STEPS:
        raise ConfigError(f"unknown step '{name}'; steps of an iteration: {', '.join(ITERATION_STEPS)}.")
    with _session(root, backend, platform) as session:
        return session.step(name, iteration, Shard(shard, shards) if shards > 1 else None)


def finish(root: str, max_iterations: int) -> dict[str, Any]:
    """Promote the run's model or not; see `Session.finish`. max_iterations 0: as the run's configuration says."""
    with _session(root) as session:
        return session.finish(max_iterations or session.run.config.max_iterations)


def gate(root: str, iteration: int, max_iterations: int) -> Literal["run", "stop"]:
    """Whether an iteration is to be done; see `Session.gate`. max_iterations 0: as the run's configuration says."""
    with _session(root) as session:
        return session.gate(iteration, max_iterations or session.run.config.max_iterations)


def confirm(root: str) -> dict[str, Any]:
    """Confirm the best policy of the run on fresh candidates."""
    with _session(root) as session:
        return session.confirm()


@contextmanager
def _session(root: str, backend: str | None = None, platform: Path | None = None) -> Iterator[Session]:
    """Open a run for one step, in a process of its own."""
    run = with_backend(create_or_open_run(root, None), backend)
    with make_display("auto") as display, watched(open_store(root), run.run_id, run.config, display) as log:
        yield Session(root, run, log, platform)
