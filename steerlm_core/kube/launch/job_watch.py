"""All that a launcher sees of one job while it watches it, kept current by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, ForbiddenError, KubeApi
from steerlm_core.kube.api.watch import Watched
from steerlm_core.kube.job.pod_template import pod_selector
from steerlm_core.kube.job.state import (
    Object,
    Sight,
    condition,
    has_started,
    is_leaving,
    is_owned_by,
    is_suspended,
    name_of,
    phase,
    uid_of,
    wanted_pods,
)
from steerlm_core.kube.launch.heartbeat import Objects, Pulse
from steerlm_core.kube.launch.logs import MasterLog

_EVENT_SECONDS = 2.0
_MASTER = "training.kubeflow.org/replica-type"


class JobView:
    """Job, pods, events, progress and the master's log of one attempt; a context manager."""

    def __init__(self, api: KubeApi, store: Objects, job: Object, launcher: str, heartbeat_seconds: float) -> None:
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
        self._jobs = Watched(api, paths.jobs(api.namespace), self._changed.set, **name)
        self._pods = Watched(api, paths.pods(api.namespace), self._changed.set, **pod_selector(self.job))
        self._pulse = Pulse(store, self.job, launcher, heartbeat_seconds)
        self._uids: dict[str, str] = {}
        self._left: dict[str, Object] = {}
        self._events: list[Object] | None = []
        self._events_at = 0.0
        self.log: MasterLog | None = None
        self._followed = ""

    def __enter__(self) -> JobView:
        """Watch."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch no more."""
        self._jobs.close()
        self._pods.close()
        self._pulse.close()
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
    def pods(self) -> tuple[Object, ...]:
        """The pods as last seen, without those of an earlier job of the same name."""
        listed = self._pods.latest.items if self._pods.latest else ()
        return tuple(pod for pod in listed if is_owned_by(pod, self.uid))

    def refresh(self) -> None:
        """Take note of what has changed: remember pods, follow the master's log, ask for outcomes and events."""
        sight = self.sight()
        if sight is None:
            return
        failed = any(pod["status"].get("phase") == "Failed" for pod in sight.pods)
        self._remember(sight.job, sight.pods, failed)
        self._follow_master(sight.pods)
        if failed or (sight.job and condition(sight.job, "Failed")):
            self._pulse.ask_for_outcomes(wanted_pods(sight.job or {}))
        if phase(sight) == "admission":
            self._look_for_events()

    def sight(self) -> Sight | None:
        """What is to be seen now; None before the first look at everything."""
        if self._jobs.latest is None or self._pods.latest is None:
            return None
        return Sight(
            job=next((found for found in self._jobs.latest.items if uid_of(found) == self.uid), None),
            pods=self.pods,
            events=self._events,
            outcomes=self._pulse.outcomes,
            progress=self._pulse.progress,
            uids=self._uids,
            store_error=self._pulse.error,
            left=tuple(self._left.values()),
            step_seconds=self._pulse.step_seconds,
        )

    def _remember(self, job: Object | None, pods: Sequence[Object], failed: bool) -> None:
        """Note the uid of each pod, and which were deleted; a suspended job gets new pods when it goes on.

        The operator deletes pods of a job whose pod has failed; where none has, it was somebody else.
        """
        if job is not None and is_suspended(job):
            self._uids.clear()
            self._left.clear()
            return
        for pod in pods:
            self._uids.setdefault(name_of(pod), uid_of(pod))
            if is_leaving(pod) and not failed:
                self._left[uid_of(pod)] = pod

    def _follow_master(self, pods: Sequence[Object]) -> None:
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
