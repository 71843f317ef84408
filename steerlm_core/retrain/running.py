"""`running.json`: one run at a time under a base root.

A claim ends when its run has finished, when the Workflow or the process that holds it has ended, or
when nobody has renewed it for hours: steps wait for GPUs that long, and renew it only while they work.
A job that fails gives the base root back, and leaves the root of its run there for the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from steerlm_core import layout
from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.periodic import Periodic
from steerlm_core.store import absolute_root, open_store
from steerlm_core.store.lease import has_died, this_process
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal

RENEW_SECONDS, STALE_SECONDS = 60.0, 6 * 3600.0

_NOBODY: dict[str, Any] = dict.fromkeys(("job", "workflow", "namespace", "cluster", "place", "process"), "")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkflowName:
    """What an Argo Workflow is found by.

    Attributes:
        name: Its name; empty outside of Kubernetes.
        namespace: Where it is; empty in claims of older releases.
        cluster: What tells its cluster from others.
    """

    name: str = ""
    namespace: str = ""
    cluster: str = ""


@dataclass(frozen=True)
class Job:
    """Who trains.

    Attributes:
        name: Id of the pipeline run, or of the process.
        workflow: The Workflow that does it.
        here: Whether this process does all of it: its end is the end of the job.
    """

    name: str
    workflow: WorkflowName = WorkflowName()
    here: bool = False


Ended = Callable[[WorkflowName], bool | None]  # whether a Workflow has ended; None: not to be known


def open_base(base_root: str) -> RunStore:
    """Open a base root by its absolute form, of which the roots of its runs are made."""
    return open_store(absolute_root(base_root))


def run_name(root: str) -> str:
    """Return what tells a run from the others of its base root, however its root is spelled."""
    return PurePosixPath(root).name


def run_root(base: RunStore, name: str) -> str:
    """Return the root of the run of that name."""
    return f"{base.root}/{layout.run_below(name)}"


def claim(base: RunStore, job: Job, ended: Ended) -> str | None:
    """Take the base root for one job.

    Args:
        base: The base root.
        job: Who takes it.
        ended: Tells whether another claim's Workflow has ended.

    Returns:
        The root of a run that an earlier job has begun and not finished; None where there is none.

    Raises:
        RunStateError: Another job is at work.
    """
    mine = {**_describe(job), "root": None, "renewed": time.time()}
    found = base.document_versioned(layout.RUNNING)
    if found is None:
        return None if base.create(layout.RUNNING, seal(mine)) else claim(base, job, ended)
    held = found[0]
    if held["job"] not in ("", job.name) and not _stale(held, ended):
        raise RunStateError(
            f"{base.url(layout.RUNNING)}: {_words(held)} is at work under this base root; one run at a time. It gives "
            f"the base root back when it ends, and counts as gone {STALE_SECONDS / 3600:.0f} hours after its last step."
        )
    root = None if held["root"] is None else run_root(base, run_name(held["root"]))
    if not base.swap(layout.RUNNING, seal({**mine, "root": root}), found[1]):
        return claim(base, job, ended)  # somebody was faster: look again who
    return root


def set_root(base: RunStore, job: str, root: str) -> None:
    """Note the run that a job works on, for the next job should this one die.

    Raises:
        RunStateError: Another job has taken over.
    """
    if not _update(base, lambda held: held["job"] == job, {"root": root, "renewed": time.time()}):
        raise RunStateError(f"{base.url(layout.RUNNING)}: is not held by job '{job}' any more; another has taken over.")


def release(base: RunStore, job: str) -> None:
    """Give the base root back, if the job still holds it; an unfinished run stays noted."""
    _update(base, lambda held: held["job"] == job, _NOBODY)


def release_of_run(base: RunStore, root: str) -> None:
    """Give the base root back where it is held for a run that has finished."""
    _update(base, lambda held: is_run(base, root, held["root"]), {**_NOBODY, "root": None})


@contextmanager
def released_on_failure(base: RunStore, job: str) -> Iterator[None]:
    """Give the base root back should what is done meanwhile fail or be interrupted."""
    try:
        yield
    except BaseException:
        with suppress(SteerLMError):  # what failed first is what its user must see
            release(base, job)
        raise


def is_run(base: RunStore, root: str, noted: str | None) -> bool:
    """Whether a root that a document of the base root notes is that of a run; a copy elsewhere is another run."""
    name = run_name(root)
    return noted is not None and run_name(noted) == name and absolute_root(root) == run_root(base, name)


def holder(base: RunStore) -> str:
    """Return the words for who has the base root."""
    found = base.document_versioned(layout.RUNNING)
    if found is None or not (found[0]["job"] or found[0]["root"]):
        return "nobody"
    return _words(found[0]) if found[0]["job"] else f"the unfinished run {found[0]['root']}"


def root_of_job(base: RunStore, job: str) -> str:
    """Return the root of the run that a job works on: the one that it goes on with, else that of its own name."""
    found = base.document_versioned(layout.RUNNING)
    held = found[0] if found else _NOBODY
    noted = held.get("root") if held["job"] == job else None
    return run_root(base, run_name(noted) if noted else job)


@contextmanager
def renewed(base: RunStore, root: str) -> Iterator[None]:
    """Renew the claim of a run while a step of it works; a copy elsewhere has none.

    Raises:
        RunStateError: Another run under this base root is at work.
    """
    if not is_run(base, root, root):
        yield
        return
    _refuse_beside_another(base, root)

    def renew() -> None:
        try:
            _update(base, lambda held: is_run(base, root, held["root"]), {"renewed": time.time()})
        except SteerLMError as error:
            _log.warning("%s is not renewed: %s", base.url(layout.RUNNING), error)

    with closing(Periodic(renew, RENEW_SECONDS, "running", at_once=True).start()):
        yield


def _refuse_beside_another(base: RunStore, root: str) -> None:
    """Stop a run that was given up, such as a Workflow that is retried after a newer run has begun."""
    found = base.document_versioned(layout.RUNNING)
    held = found[0] if found else _NOBODY
    beside = held["job"] and held["root"] is not None and not is_run(base, root, held["root"])
    if beside and not _stale(held, lambda _: None):
        raise RunStateError(
            f"{root}: {_words(held)} is at work under the same base root ({base.url(layout.RUNNING)}); one run at a "
            f"time. Wait until it has finished; `steerlm resume {root}` goes on with this one then."
        )


def _update(base: RunStore, is_meant: Callable[[dict[str, Any]], bool], values: Mapping[str, Any]) -> bool:
    """Change the claim if it is the one that is meant; renewals by steps may come between."""
    while (found := base.document_versioned(layout.RUNNING)) is not None and is_meant(found[0]):
        if base.swap(layout.RUNNING, seal({**found[0], **values}), found[1]):
            return True
    return False


def _describe(job: Job) -> dict[str, Any]:
    workflow = {"workflow": job.workflow.name, "namespace": job.workflow.namespace, "cluster": job.workflow.cluster}
    return {**_NOBODY, "job": job.name, **workflow, **(this_process() if job.here else {})}


def _stale(held: dict[str, Any], ended: Ended) -> bool:
    workflow = WorkflowName(held["workflow"], held.get("namespace", ""), held.get("cluster", ""))
    if workflow.name and ended(workflow):
        return True
    if has_died(held.get("place", ""), held.get("process", "")):
        return True
    return time.time() - float(held["renewed"]) > STALE_SECONDS


def _words(held: dict[str, Any]) -> str:
    where = f" in namespace '{held['namespace']}'" if held.get("namespace") else ""
    what = f"Workflow '{held['workflow']}'{where}" if held["workflow"] else f"job '{held['job']}'"
    return f"{what} ({held['root']})" if held["root"] else what
