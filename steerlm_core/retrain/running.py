"""`running.json`: one run at a time under a base root.

A claim ends when its run has finished, when the Workflow that holds it has, or when nobody has
renewed it for hours: steps wait for GPUs that long, and renew it only while they work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.sealed import seal
from steerlm_core.store.run_store import RunStore

RUNNING = "running.json"
RENEW_SECONDS, STALE_SECONDS = 60.0, 6 * 3600.0

_FREE: Mapping[str, Any] = {"job": "", "workflow": "", "root": None}

Ended = Callable[[str], bool | None]  # whether a Workflow has ended; None: not to be known

_log = logging.getLogger(__name__)


def claim(base: RunStore, job: str, workflow: str, ended: Ended) -> str | None:
    """Take the base root for one job.

    Args:
        base: The base root.
        job: Id of the pipeline run, or of the process.
        workflow: Name of the Workflow that does it; empty outside of Kubernetes.
        ended: Tells whether another claim's Workflow has ended.

    Returns:
        The root of a run that an earlier job has begun and not finished; None where there is none.

    Raises:
        RunStateError: Another job is at work.
    """
    mine = {"job": job, "workflow": workflow, "root": None, "renewed": time.time()}
    found = base.document_versioned(RUNNING)
    if found is None:
        if base.create(RUNNING, seal(mine)):
            return None
        return claim(base, job, workflow, ended)
    held = found[0]
    if held["job"] not in ("", job) and not _stale(held, ended):
        raise RunStateError(
            f"{base.url(RUNNING)}: {_words(held)} is at work under this base root; one run at a time. It gives the "
            f"base root back when it ends, and counts as gone {STALE_SECONDS / 3600:.0f} hours after its last step."
        )
    if not base.swap(RUNNING, seal({**mine, "root": held["root"]}), found[1]):
        return claim(base, job, workflow, ended)  # somebody was faster: look again who
    return None if held["root"] is None else str(held["root"])


def set_root(base: RunStore, job: str, root: str) -> None:
    """Note the run that a job works on, for the next job should this one die."""
    _update(base, job, {"root": root, "renewed": time.time()})


def release(base: RunStore, job: str) -> None:
    """Give the base root back: the run is finished, or there was nothing to do."""
    _update(base, job, _FREE)


def release_of_run(base: RunStore, root: str) -> None:
    """Give the base root back where it is held for a run that has finished."""
    found = base.document_versioned(RUNNING)
    if found is not None and found[0]["root"] == root:
        _update(base, str(found[0]["job"]), _FREE)


@contextmanager
def renewed(base: RunStore, root: str) -> Iterator[None]:
    """Renew the claim of a run while a step of it works."""
    end = threading.Event()

    def keep() -> None:
        while True:
            try:
                _renew(base, root)
            except SteerLMError as error:
                _log.warning("%s is not renewed: %s", base.url(RUNNING), error)
            if end.wait(RENEW_SECONDS):
                return

    thread = threading.Thread(target=keep, name="running", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _renew(base: RunStore, root: str) -> None:
    found = base.document_versioned(RUNNING)
    if found and found[0]["root"] == root:
        base.swap(RUNNING, seal({**found[0], "renewed": time.time()}), found[1])


def _update(base: RunStore, job: str, values: Mapping[str, Any]) -> None:
    """Change the claim of a job; renewals by its steps may come between."""
    while True:
        found = base.document_versioned(RUNNING)
        if found is None or found[0]["job"] != job:
            raise RunStateError(f"{base.url(RUNNING)}: is not held by job '{job}' any more; another has taken over.")
        if base.swap(RUNNING, seal({**found[0], **values}), found[1]):
            return


def _stale(held: dict[str, Any], ended: Ended) -> bool:
    if held["workflow"] and ended(held["workflow"]):
        return True
    return time.time() - float(held["renewed"]) > STALE_SECONDS


def _words(held: dict[str, Any]) -> str:
    what = f"Workflow '{held['workflow']}'" if held["workflow"] else f"job '{held['job']}'"
    return f"{what} ({held['root']})" if held["root"] else what
