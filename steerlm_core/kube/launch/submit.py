"""Bringing a job into being exactly once: create it, or adopt the one that is there, or say why neither is possible.

The name says what the job is for, so the API server lets one launcher create it. Whoever finds it there
adopts it if it was made of the same spec. An answer that was lost is no answer: look who is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, KubeApi, KubeObject
from steerlm_core.kube.job.failure_classes import TrainJobError, failure_message
from steerlm_core.kube.job.spec import SPEC_HASH
from steerlm_core.kube.job.state import is_being_deleted, name_of
from steerlm_core.retry import growing, retry_for

Say = Callable[[str], None]
Check = Callable[[], None]

_PAUSES = growing(0.5)


def submit(api: KubeApi, manifest: KubeObject, seconds: float, say: Say, check: Check) -> KubeObject:
    """Create the job of a manifest, or adopt it; returns it as the API server has it.

    Args:
        api: The cluster.
        manifest: The whole job, with its hash, and the owners that it is to have.
        seconds: How long to try where trying again may help.
        say: Is told what is waited for, once for each reason.
        check: Called before every try; raises where nobody wants the job any more.

    Raises:
        TrainJobError: It cannot be created, or its name is taken; the message says why.
    """
    waits = _Waits(name_of(manifest), say)

    def create_or_adopt() -> KubeObject:
        check()
        return _create_or_adopt(api, manifest, waits.denied_seconds)

    try:
        return retry_for(seconds, create_or_adopt, lambda error, _: isinstance(error, _WaitError), _PAUSES, waits.note)
    except _WaitError as wait:
        words = failure_message(wait.kind, name_of(manifest), str(wait))
        raise TrainJobError(wait.kind, words) from wait


class _WaitError(Exception):
    """Not yet; `kind` is the class where it stays so."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Waits:
    """What a job is waited for."""

    def __init__(self, job: str, say: Say) -> None:
        self._job, self._say, self._told = job, say, ""
        self._allowed = time.monotonic()  # when a permission was last not what was missing

    @property
    def denied_seconds(self) -> float:
        """How long permissions have been what is missing."""
        return time.monotonic() - self._allowed

    def note(self, wait: BaseException) -> None:
        """Say what is waited for, once for each reason."""
        if not (isinstance(wait, _WaitError) and wait.kind == "forbidden"):
            self._allowed = time.monotonic()
        if str(wait) != self._told:
            self._told = str(wait)
            self._say(f"job {self._job}: {self._told}; trying again")


def _create_or_adopt(api: KubeApi, manifest: KubeObject, denied: float) -> KubeObject:
    path, name = paths.jobs(api.namespace), name_of(manifest)
    try:
        return api.request("POST", path, manifest)
    except ClusterError as error:
        if error.status != 409 and not error.transient:
            raise _refusal(name, error, denied) from error
        if error.transient and "exceeded quota" in str(error):
            raise _WaitError("quota", str(error)) from error
        refused = error
    try:
        found = api.get(f"{path}/{name}")
    except ClusterError as error:
        raise _WaitError("api_unreachable", str(error)) from error
    if found is None:
        raise _WaitError("api_unreachable", str(refused)) from refused
    if is_being_deleted(found):
        raise _WaitError("name_taken", "a job of this name is being deleted")
    return _adopt(api, found, manifest)


def _refusal(name: str, error: ClusterError, denied: float) -> Exception:
    """What a refusal that is no accident means; permissions have been missing for so long."""
    words = str(error)
    if error.status == 403 and "exceeded quota" in words:
        return _WaitError("quota", words)
    if error.status == 404:
        kind = "no_operator" if "could not find" in words else "rejected"
    else:
        lacking = error.status == 401 or "cannot create resource" in words
        kind = "forbidden" if lacking else "rejected"
        if lacking and error.may_pass(denied):
            return _WaitError(kind, words)
    return TrainJobError(kind, failure_message(kind, name, words))


def _adopt(api: KubeApi, found: KubeObject, manifest: KubeObject) -> KubeObject:
    """Take over a job that is there, if it is the one that was wanted; add our owners to its own, as the last.

    Who has no owner for it, such as a laptop, frees it of those it has: the garbage collector deletes what belongs to
    a Workflow that is gone.
    """
    ours, theirs = (thing["metadata"].get("annotations", {}).get(SPEC_HASH) for thing in (manifest, found))
    if ours != theirs:
        seen = f"a job of this name is there, of another spec ({SPEC_HASH} is {theirs or 'missing'}, wanted {ours})"
        raise TrainJobError("name_taken", failure_message("name_taken", name_of(manifest), seen))
    has: Sequence[Mapping[str, Any]] = found["metadata"].get("ownerReferences", [])
    wanted: Sequence[Mapping[str, Any]] = manifest["metadata"].get("ownerReferences", [])
    before = [owner for owner in has if owner["uid"] not in {each["uid"] for each in wanted}]
    owners = [*before, *wanted] if wanted else []
    if [owner["uid"] for owner in owners] == [owner["uid"] for owner in has]:
        return found
    metadata = {"resourceVersion": found["metadata"]["resourceVersion"], "ownerReferences": owners}
    try:
        return api.request("PATCH", paths.job(api.namespace, name_of(found)), {"metadata": metadata})
    except ClusterError as error:
        if error.status == 409 or error.transient:  # somebody else changed it, or no answer came: look again
            raise _WaitError("api_unreachable", str(error)) from error
        raise TrainJobError("forbidden", failure_message("forbidden", name_of(found), str(error))) from error
