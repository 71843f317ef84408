"""The launcher: has one training step done by PyTorchJobs, one attempt after the other, and never loses one.

    submit or adopt ─► watch ─► verdict, kept in the run root ─► delete ─► done, or the next attempt, or an error

An attempt is over when its verdict stands in the run root (`jobs/<job>/verdict.json`, create-only), so
whoever comes next knows where to go on: several launchers of one step do as one would. A launcher that
dies, or gets SIGTERM, leaves its job running for a successor; unwatched, the job ends itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from steerlm_core import layout
from steerlm_core.errors import StoreError
from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, KubeApi, KubeObject, patiently
from steerlm_core.kube.api.own_pod import Workflow, is_terminated
from steerlm_core.kube.api.watch import Informer
from steerlm_core.kube.job.diagnosis import Finding, GracePeriods, api_unreachable, diagnose
from steerlm_core.kube.job.failure_classes import DONE, RETRIED, TrainJobError, failure_message
from steerlm_core.kube.job.state import is_owned_by, name_of, uid_of
from steerlm_core.kube.launch.announce import Announcer
from steerlm_core.kube.launch.delete import DELETE_SECONDS, delete, delete_and_wait, delete_and_warn, delete_superseded
from steerlm_core.kube.launch.job_watch import JobWatch
from steerlm_core.kube.launch.logs import keep_logs, read_logs
from steerlm_core.kube.launch.submit import submit
from steerlm_core.platform import TrainJobConfig
from steerlm_core.steps.context import Documents, Events
from steerlm_core.store.sealed import seal
from steerlm_core.training.job import TrainingStoppedError
from steerlm_core.training.stop import StopSignal

_log = logging.getLogger("steerlm.kube")

_TICK_SECONDS = 1.0
_SAID_AFTER = 5.0  # what passes by itself need not be said
_LAST_CALL_SECONDS = 5.0  # after a termination, before SIGTERM


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended: its class, in words."""

    kind: str
    message: str


class Launcher:
    """Runs the attempts of one training step."""

    def __init__(
        self,
        api: KubeApi,
        store: Documents,
        config: TrainJobConfig,
        build: Callable[[int], KubeObject],
        events: Events,
        *,
        committed: Callable[[], bool],
        name: str,
        workflow: Workflow | None = None,
    ) -> None:
        """Get ready.

        Args:
            api: The cluster, in the namespace of the job.
            store: The run root.
            config: Budgets, attempts, heartbeats.
            build: Makes the manifest of an attempt, from its number.
            events: Is told of every change of state, and of progress.
            committed: Whether the model of the step stands in the run root.
            name: Who launches, for people.
            workflow: The own Workflow, whose termination ends the job.
        """
        self._api, self._store, self._config, self._build, self._events = api, store, config, build, events
        self._committed, self._name, self._workflow = committed, name, workflow
        self._stop = StopSignal()
        self._workflow_informer: Informer | None = None
        self._job = self._uid = ""
        self._owned = False

    def run(self) -> None:
        """Have the step done.

        Raises:
            TrainJobError: It could not be; `kind` is the class of the last attempt's end.
            TrainingStoppedError: SIGTERM came; the job goes on.
        """
        with self._stop, ExitStack() as stack:
            if self._workflow:
                name = {"fieldSelector": f"metadata.name={self._workflow.name}"}
                where = paths.workflows(self._workflow.namespace)
                self._workflow_informer = Informer(self._api, where, lambda: None, **name)
                stack.callback(self._workflow_informer.close)
            try:
                self._run_attempts()
            except KeyboardInterrupt:
                self._say(self._goes_on("interrupted"))
                raise

    def _run_attempts(self) -> None:
        number, most = self._first_attempt(), self._config.max_attempts
        for tried in range(1 + self._tried(number) % most, most + 1):
            verdict = self._attempt(number)
            if verdict.kind == DONE:
                return
            if verdict.kind not in RETRIED:
                raise TrainJobError(verdict.kind, verdict.message)
            if tried == most:
                raise TrainJobError(verdict.kind, f"{verdict.message}\nThat was attempt {tried} of {most}.")
            self._say(f"{verdict.message}\nAttempt {tried} of {most}; the next goes on from the last checkpoint.")
            number += 1

    def _first_attempt(self) -> int:
        """The first attempt without a verdict."""
        number = 0
        while self._store.exists(layout.job_verdict(name_of(self._build(number)))):
            number += 1
        return number

    def _tried(self, number: int) -> int:
        """How many attempts right before this one have failed of what is tried again, by whatever launcher."""
        before = number
        while before and self._verdict(name_of(self._build(before - 1))).kind in RETRIED:
            before -= 1
        return number - before

    def _attempt(self, number: int) -> Verdict:
        manifest = self._build(number)
        self._job, self._uid = name_of(manifest), ""
        delete_superseded(self._api, manifest, self._say)
        job = submit(self._api, manifest, self._config.budgets.admission, self._say, self._check_wanted)
        self._uid, self._owned = uid_of(job), bool(manifest["metadata"].get("ownerReferences"))
        with JobWatch(self._api, self._store, job, self._name, self._config.heartbeat_seconds) as watch:
            over = self._watch_to_the_end(watch)
            if over.kind == "api_unreachable":
                return self._leave(watch, over)
            logs = read_logs(self._api, watch.pods, watch.log) if over.kind not in (DONE, "job_deleted") else {}
            if over.kind == "store_unreachable":  # the run root may take long to say no
                delete_and_wait(self._api, watch.job, watch.uid, DELETE_SECONDS)
            try:
                return self._done(watch, over) if self._committed() else self._conclude(watch, over, logs)
            except StoreError as error:
                if over.kind != DONE:
                    delete_and_wait(self._api, watch.job, watch.uid, DELETE_SECONDS)
                words = failure_message(over.kind, watch.job, over.seen, _log_of(over, logs, watch))
                raise TrainJobError("store_unreachable", f"{words}\nNor can the run root be used: {error}") from error

    def _watch_to_the_end(self, watch: JobWatch) -> Finding:
        """Watch until there is nothing more to wait for."""
        grace, away = GracePeriods(), GracePeriods()
        announcer = Announcer(self._say, self._events)
        while True:
            watch.wait(_TICK_SECONDS)
            self._check_wanted()
            announcer.api_server(watch.outdated)
            watch.refresh()
            observed = watch.observed()
            if observed is None:
                continue
            now = time.monotonic()
            if blind := away.exceeded(api_unreachable(observed, watch.outdated, self._config.budgets), now):
                return blind
            if watch.outdated:
                continue
            found = diagnose(observed, self._config.budgets)
            over = grace.exceeded(found, now)
            announcer.job(watch.job, observed, grace.lasting(found, now, _SAID_AFTER))
            if over:
                _log.info("job %s is over: %s: %s", watch.job, over.kind, over.seen)
                return over

    def _done(self, watch: JobWatch, over: Finding) -> Verdict:
        """However the job has ended, the step has its model; a job that has succeeded stays to be looked at."""
        if over.kind != DONE:
            delete_and_wait(self._api, watch.job, watch.uid, DELETE_SECONDS)
        return Verdict(DONE, over.seen)

    def _leave(self, watch: JobWatch, over: Finding) -> Verdict:
        """Give up on an API server that is away; the job cannot be ended, and ends itself, as an orphan."""
        with suppress(StoreError):
            if self._committed():
                return Verdict(DONE, over.seen)
        raise TrainJobError(over.kind, failure_message(over.kind, watch.job, self._goes_on(over.seen)))

    def _conclude(self, watch: JobWatch, over: Finding, logs: Mapping[str, str]) -> Verdict:
        """Keep what tells why, and leave nothing running."""
        if over.kind == DONE:
            over = Finding("not_committed", DONE, "it succeeded, and no model manifest stands in the run root")
            logs = read_logs(self._api, watch.pods, watch.log)
        words = failure_message(over.kind, watch.job, over.seen, _log_of(over, logs, watch))
        verdict = self._record(watch.job, Verdict(over.kind, words))
        keep_logs(self._store, watch.job, logs)
        delete_and_warn(self._api, watch.job, watch.uid, self._say)
        return verdict

    def _record(self, job: str, verdict: Verdict) -> Verdict:
        """Write the verdict, or read the one that another launcher has written."""
        sealed = seal({"class": verdict.kind, "message": verdict.message, "time": time.time()})
        return verdict if self._store.create(layout.job_verdict(job), sealed) else self._verdict(job)

    def _verdict(self, job: str) -> Verdict:
        found = self._store.document(layout.job_verdict(job))
        return Verdict(found["class"], found["message"])

    def _check_wanted(self) -> None:
        """Raise where nobody wants this launcher, or its job, any more."""
        informer = self._workflow_informer
        if informer and informer.failed:
            self._say(f"the own Workflow cannot be informer, so a termination is not noticed early: {informer.failed}")
            self._workflow_informer = None
        elif informer and informer.latest and not informer.latest.error:
            ended = not informer.latest.items or is_terminated(informer.latest.items[0])
            if ended:
                seen = f"its Workflow was terminated, and {self._end_job()}"
                raise TrainJobError("terminated", failure_message("terminated", self._job, seen))
        if self._stop.came:
            raise TrainingStoppedError(self._goes_on("stopped by SIGTERM"))

    def _end_job(self) -> str:
        """Delete the job, unless another Workflow has adopted it since, or it is somebody else's; say what was done."""
        assert self._workflow is not None
        path, ours = paths.job(self._api.namespace, self._job), self._workflow.reference["uid"]
        try:
            found = patiently(lambda: self._api.get(path), _LAST_CALL_SECONDS)
            if found is None or not (uid_of(found) == self._uid or is_owned_by(found, ours)):
                return "it has no job"
            owners = found["metadata"].get("ownerReferences", [])
            if owners[-1]["uid"] != ours if owners else self._owned:
                return f"the job is left to {owners[-1]['name'] if owners else 'a launcher'} that has adopted it"
            patiently(lambda: delete(self._api, self._job, uid_of(found)), _LAST_CALL_SECONDS)
        except ClusterError as error:
            return f"the job could not be deleted ({error}); unwatched, it ends itself"
        return "the job was deleted"

    def _goes_on(self, why: str) -> str:
        return (
            f"{why}; job {self._job} goes on. Who goes on with the run watches it again; unwatched, it writes a "
            f"checkpoint and ends itself after {self._config.orphan_after_seconds} s."
        )

    def _say(self, words: str) -> None:
        _log.info("%s", words)  # in the log of the step's pod, where no display shows the events
        self._events.warning(words)


def _log_of(over: Finding, logs: Mapping[str, str], watch: JobWatch) -> str:
    """The log that tells most of an end: that of its pod, else the master's."""
    return logs.get(over.pod) or (logs.get(watch.log.pod, "") if watch.log else "")
