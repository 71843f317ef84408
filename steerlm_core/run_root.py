"""A run's root and its `run.json`: made once, from the configuration, and never changed."""

from __future__ import annotations

import platform
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from steerlm_core import __version__
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.dotted import differing
from steerlm_core.errors import RunStateError
from steerlm_core.schemas import SCHEMA_VERSION
from steerlm_core.sealed import seal
from steerlm_core.steps.context import RunInfo
from steerlm_core.store import open_store
from steerlm_core.store.contents import RUN
from steerlm_core.store.inputs import Inputs
from steerlm_core.store.probe import probe
from steerlm_core.store.run_store import RunStore

_VERSIONED = ("torch", "transformers", "deepspeed", "pyarrow")


def create_or_open_run(root: str, config: RunConfig | None, origin: Mapping[str, Any] | None = None) -> RunInfo:
    """Open the run at a root, or create it from a configuration.

    Args:
        root: The run root.
        config: The configuration; None: the run must exist.
        origin: Where a new run under a base root comes from; see `steerlm_core.retrain.begin`.

    Returns:
        The run; its configuration is the given one, which may differ in what is outside every digest.

    Raises:
        RunStateError: There is no run, or it was made from another configuration or by another release.
        StoreError: The root cannot be reached, or lies where conditional puts are not honoured.
    """
    store = open_store(root)
    if config is not None and not store.exists(RUN):
        check_given(config)
        probe(store)
        store.create(RUN, seal(_describe(config, origin or {})))
    run = open_run(store)
    if config is None:
        return run
    if run.config.digest() != config.digest():
        names = ", ".join(differing(run.config.deciding(), config.deciding()))
        raise RunStateError(
            f"{root}: holds run '{run.run_id}', made from another configuration, differing in: {names}. "
            f"Use another root, or go on: `steerlm resume {root}`."
        )
    return replace(run, config=config)


def check_given(config: RunConfig) -> list[str]:
    """Check everything that the user gave, and bring nothing large here for it; see `prepare.preflight`."""
    from steerlm_core.steps.prepare import preflight

    with tempfile.TemporaryDirectory(prefix="steerlm-") as scratch:
        return preflight(config, Inputs(Path(scratch), weights=False).fetch)


def open_run(store: RunStore) -> RunInfo:
    """Read `run.json`.

    Raises:
        RunStateError: It is missing, damaged, or of another schema version.
    """
    found = store.document_versioned(RUN)
    if found is None:
        raise RunStateError(
            f"{store.root}: holds no run (no {RUN}). `steerlm run CONFIG --root {store.root}` starts one."
        )
    described, _ = found
    if described["schema_version"] != SCHEMA_VERSION:
        raise RunStateError(
            f"{store.root}: written by release {described['versions']['steerlm']} with schema version "
            f"{described['schema_version']}; this is {__version__} with version {SCHEMA_VERSION}. Use that one."
        )
    config = parse_config(described["config"], f"{store.root}/{RUN}")
    return RunInfo(described["run_id"], config, described["origin"])


def _describe(config: RunConfig, origin: Mapping[str, Any]) -> dict[str, Any]:
    versions = {name: version(name) for name in _VERSIONED}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{config.name}-{uuid.uuid4().hex[:8]}",
        "config_digest": config.digest(),
        "seed": config.seed,
        "versions": {"steerlm": __version__, "python": platform.python_version(), **versions},
        "config": config.model_dump(mode="json"),
        "origin": dict(origin),
    }
