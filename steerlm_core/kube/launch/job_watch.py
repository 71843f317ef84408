"""The watch of a launcher over one job: all that is seen of it, kept current by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, ForbiddenError, KubeApi, KubeObject
from steerlm_core.kube.api.watch import Informer
from steerlm_core.kube.job.pod_template import pod_selector
from steerlm_core.kube.job.state import (
    JobState,
    has_started,
    is_being_deleted,
    is_owned_by,
    is_suspended,
    name_of,
    phase,
    replica_count,
    true_condition,
    uid_of,
)
from steerlm_core.kube.launch.heartbeat import HeartbeatExchange
from steerlm_core.kube.launch.logs import MasterLog
from steerlm_core.steps.context import Documents

_EVENT_SECONDS = 2.0
_MASTER = "training.kubeflow.org/replica-type"


class JobWatch:
    """Job, pods, events, progress and the master's log of one attempt; a context manager."""

    def __init__(
        self, api: KubeApi, store: Documents, job: KubeObject, launcher: str, heartbeat_seconds: float
    ) -> None:
        """Start to watch.

        Args:
            api: The cluster.
            store: The run root.
            job: The job, as it was created or adopted.
            launcher: Who watches, for people.
            heartbeat_seconds: How often the pods are told.
        """
        self.job, self.uid = name_of(job), uid_of(job)
        self._api, self._changed = api, threading.Event()
        name = {"fieldSelector": f"metadata.name={self.job}"}
        self._jobs = Informer(api, paths.jobs(api.namespace), self._changed.set, **name)
        self._pods = Informer(api, paths.pods(api.namespace), self._changed.set, **pod_selector(self.job))
        self._heartbeat = HeartbeatExchange(store, self.job, launcher, heartbeat_seconds)
        self._first_uids: dict[str, str] = {}
        self._deleted: dict[str, KubeObject] = {}
        self._events: list[KubeObject] | None = []
        self._events_at = 0.0
        self.log: MasterLog | None = None
        self._followed = ""

    def __enter__(self) -> JobWatch:
        """Watch."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch no more."""
        self._jobs.close()
        self._pods.close()
        self._heartbeat.close()
        if self.log:
            self.log.close()

    def wait(self, seconds: float) -> None:
        """Wait for a change, or so long."""
        self._changed.wait(seconds)
        self._changed.clear()

    @property
    def outdated(self) -> str:
        """Why what is seen may be out of date; empty while it is not."""
        for watched in (self._jobs, self._pods):
            if watched.failed:
                raise watched.failed
        return next((str(w.latest.error) for w in (self._jobs, self._pods) if w.latest and w.latest.error), "")

    @property
    def pods(self) -> tuple[KubeObject, ...]:
        """The pods as last seen, without those of an earlier job of the same name."""
        listed = self._pods.latest.items if self._pods.latest else ()
        return tuple(pod for pod in listed if is_owned_by(pod, self.uid))

    def refresh(self) -> None:
        """Take note of what has changed: remember pods, follow the master's log, ask for outcomes and events."""
        observed = self.observed()
        if observed is None:
            return
        failed = any(pod["status"].get("phase") == "Failed" for pod in observed.pods)
        self._remember(observed.job, observed.pods, failed)
        self._follow_master(observed.pods)
        if failed or (observed.job and true_condition(observed.job, "Failed")):
            self._heartbeat.ask_for_outcomes(replica_count(observed.job or {}))
        if phase(observed) == "admission":
            self._look_for_events()

    def observed(self) -> JobState | None:
        """What is to be seen now; None before the first look at everything."""
        if self._jobs.latest is None or self._pods.latest is None:
            return None
        return JobState(
            job=next((found for found in self._jobs.latest.items if uid_of(found) == self.uid), None),
            pods=self.pods,
            events=self._events,
            outcomes=self._heartbeat.outcomes,
            progress=self._heartbeat.progress,
            first_uids=self._first_uids,
            store_error=self._heartbeat.error,
            deleted=tuple(self._deleted.values()),
            step_seconds=self._heartbeat.step_seconds,
        )

    def _remember(self, job: KubeObject | None, pods: Sequence[KubeObject], failed: bool) -> None:
        """Note the uid of each pod, and which were deleted; a suspended job gets new pods when it goes on.

        The operator deletes pods of a job whose pod has failed; where none has, it was somebody else.
        """
        if job is not None and is_suspended(job):
            self._first_uids.clear()
            self._deleted.clear()
            return
        for pod in pods:
            self._first_uids.setdefault(name_of(pod), uid_of(pod))
            if is_being_deleted(pod) and not failed:
                self._deleted[uid_of(pod)] = pod

    def _follow_master(self, pods: Sequence[KubeObject]) -> None:
        masters = [pod for pod in pods if pod["metadata"]["labels"].get(_MASTER) == "master"]
        if not masters or not has_started(masters[0]) or uid_of(masters[0]) == self._followed:
            return
        if self.log:  # of a pod that was there before the job was suspended
            self.log.close()
        self.log, self._followed = MasterLog(self._api, name_of(masters[0])), uid_of(masters[0])

    def _look_for_events(self) -> None:
        if time.monotonic() - self._events_at < _EVENT_SECONDS:
            return
        self._events_at = time.monotonic()
        query = {"fieldSelector": f"involvedObject.uid={self.uid}"}
        try:
            listed = self._api.request("GET", paths.events(self._api.namespace), query=query)["items"]
            self._events = sorted(listed, key=lambda event: event["metadata"]["creationTimestamp"])
        except ForbiddenError:
            self._events = None
        except ClusterError:
            return
