"""begin: from the arguments of a pipeline to its run, opened or created, at a root or under a base root."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from steerlm_core.config import RunConfig, load_config, parse_config
from steerlm_core.dotted import differing
from steerlm_core.errors import ConfigError
from steerlm_core.retrain import running
from steerlm_core.retrain.begin import Begun
from steerlm_core.retrain.begin import begin as begin_run
from steerlm_core.run import Run, find_run, open_or_create_run
from steerlm_core.store import open_store
from steerlm_core.store.inputs import Inputs
from steerlm_core.store.run_store import RunStore


def begin(
    root: str,
    base_root: str,
    config: dict[str, Any] | None,
    config_uri: str,
    job: str,
    max_iterations: int = 0,
    room: int = 0,
    here: bool = False,
) -> Run | None:
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
        The run; None where there is nothing new to train on.

    Raises:
        ConfigError: The arguments do not go together, or the run wants more iterations than there is room for.
    """
    given = _given_config(config, config_uri)
    if bool(root) == bool(base_root):
        raise ConfigError(f"root is '{root}' and base_root is '{base_root}': give one of the two.")
    if root:
        return _open(open_store(root), given, max_iterations, room)
    if given is None:
        raise ConfigError("base_root needs a configuration: give config or config_uri.")
    _check_room(max_iterations, given, room)  # before the base root is claimed
    workflow, ended = _workflow()
    base = running.open_base(base_root)
    with running.released_on_failure(base, job):
        begun = begin_run(base, given, running.Job(job, workflow, here), ended)
        print(begun.words)
        return _open_begun(begun, given, max_iterations, room)


def _open_begun(begun: Begun, given: RunConfig, max_iterations: int, room: int) -> Run | None:
    """Open or create the run that a job is to do under a base root."""
    if begun.store is None:
        return None
    run = open_or_create_run(begun.store, begun.config, begun.origin)
    _check_room(max_iterations, run.config, room)
    if begun.config is None:  # gone on with; which policy a run starts from is not for the user to say
        _say_what_stays(run.root, run.config, given.model_copy(update={"models": run.config.models}), max_iterations)
    return run


def _open(store: RunStore, given: RunConfig | None, max_iterations: int, room: int) -> Run:
    """Open or create a run, and say what it will not take from `given`."""
    standing = find_run(store)
    kept = standing.config if standing else given
    if kept is not None:
        _check_room(max_iterations, kept, room)
    run = open_or_create_run(store, given)
    if given is not None and kept is not None:
        _say_what_stays(run.root, kept, given, max_iterations)
    return run


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
