"""Run the pipeline on this machine under kfp.local: each step in a process of its own, as on a cluster.

The packaged pipeline.yaml itself is run, so what runs here is what would be submitted.
"""

from __future__ import annotations

import builtins
import sys
import tempfile
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from kfp import local
from kfp.components import YamlComponent

from steerlm_core.config import RunConfig
from steerlm_core.errors import ConfigError, RunStateError
from steerlm_core.kubeflow.package import packaged, plain
from steerlm_core.kubeflow.packaged import load_pipeline
from steerlm_core.kubeflow.step_output import StepOutput
from steerlm_core.store.run_store import RunStore

if TYPE_CHECKING:
    from steerlm_core.run import Run


def run_under_kfp_local(store: RunStore, config: RunConfig) -> Run:
    """Run the pipeline to its end, or continue it on a root that holds an unfinished run of the same configuration.

    Args:
        store: The run root.
        config: The configuration.

    Returns:
        The run, as its steps have left it.

    Raises:
        ConfigError: The configuration wants more iterations than the pipeline was compiled for.
        RunStateError: kfp.local reported success, but iterations are missing.
        SteerLMError: Whatever a step failed with.
    """
    room = packaged().room
    if config.max_iterations > room:
        raise ConfigError(
            f"max_iterations: {config.max_iterations} is more than the {room} that the pipeline was compiled for; "
            "lower it, or run without --runner kfp-local."
        )
    with tempfile.TemporaryDirectory(prefix="steerlm-kfp-") as scratch:
        _run(load_pipeline(), Path(scratch), store.root, config)
    return _finished(store, config.max_iterations)


def _run(pipeline: YamlComponent, scratch: Path, root: str, config: RunConfig) -> None:
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(scratch / "outputs"),
        workspace_root=str(scratch / "workspace"),
    )
    output, own_print = StepOutput(sys.stdout), builtins.print
    try:
        # kfp warns of every step that its image is no Python image; it is not used here.
        with redirect_stdout(output), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            pipeline(root=root, config=plain(config), max_iterations=config.max_iterations)
    except RuntimeError as error:
        raise output.failure() or error from None
    finally:
        builtins.print = own_print  # kfp.local puts its own in place, and tasks that run at once leave it there


def _finished(store: RunStore, max_iterations: int) -> Run:
    """Open the run, and make sure that its iterations ran: kfp.local reports success where it knew no condition."""
    from steerlm_core.run import open_or_create_run

    run = open_or_create_run(store, None)
    try:
        run.gate(max_iterations, max_iterations + 1)  # asks for the commit of the last one, unless the run decided
    except RunStateError as error:
        raise RunStateError(f"kfp.local reported success, but did not run every iteration. {error}") from error
    return run
