"""The launcher's side of the run root: a heartbeat for the pods, and what the pods say, in a thread of its own.

A store that does not answer can hold a call up for minutes; the launcher must go on watching meanwhile.
"""

from __future__ import annotations

import time
from contextlib import suppress

from pydantic import ValidationError

from steerlm_core import layout
from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.kube.job.files import Heartbeat, Outcome, Progress
from steerlm_core.periodic import Periodic
from steerlm_core.steps.context import Documents

_POLL_SECONDS = 2.0


class HeartbeatExchange:
    """Tells the pods of one job that a launcher watches, and reads what they say of progress and end, while it is open.

    Attributes:
        progress: The last progress read; None before the first.
        step_seconds: How long a step took between the last two; 0 while that is not known.
        outcomes: What the pods left about their end, once it was asked for.
        error: Why the store cannot be read or written; empty while it can.
    """

    def __init__(self, store: Documents, job: str, launcher: str, every: float) -> None:
        """Begin.

        Args:
            store: The run root.
            job: Name of the job.
            launcher: Who watches, for people.
            every: Seconds between heartbeats.
        """
        self.progress: Progress | None = None
        self.step_seconds = 0.0
        self.outcomes: list[Outcome] = []
        self.error = ""
        self._nodes = 0
        self._store, self._job, self._launcher, self._every = store, job, launcher, every
        self._counter, self._due = time.time_ns(), 0.0  # a successor's counter differs from its predecessor's
        self._exchanges = Periodic(self._exchange, _POLL_SECONDS, f"heartbeat {job}", at_once=True).start()

    def close(self) -> None:
        """Leave the pods alone."""
        self._exchanges.stop()

    def ask_for_outcomes(self, nodes: int) -> None:
        """Have the outcomes of so many pods read from now on."""
        if nodes != self._nodes:
            self._nodes = nodes
            self._exchanges.wake()

    def _exchange(self) -> None:
        try:
            if time.monotonic() >= self._due:
                self._beat()
            self._note(read_progress(self._store, self._job))
            self.outcomes = read_outcomes(self._store, self._job, self._nodes)
            self.error = ""
        except SteerLMError as error:
            self.error = str(error)

    def _beat(self) -> None:
        self._counter += 1
        beat = Heartbeat(launcher=self._launcher, counter=self._counter, time=time.time())
        self._store.put(layout.job_heartbeat(self._job), beat.model_dump_json().encode())
        self._due = time.monotonic() + self._every

    def _note(self, found: Progress | None) -> None:
        last = self.progress
        if found and last and found.step > last.step:
            self.step_seconds = (found.time - last.time) / (found.step - last.step)  # by one clock, the pod's
        self.progress = found  # none: a pod that has just started has removed what an earlier one had left


def read_progress(store: Documents, job: str) -> Progress | None:
    """Read how far a job is; None where it has not said."""
    key = layout.job_progress(job)
    try:
        return Progress.model_validate_json(store.read(key)) if store.exists(key) else None
    except ValidationError:
        return None  # of another release


def read_outcomes(store: Documents, job: str, nodes: int) -> list[Outcome]:
    """Read what the pods of a job left about their end; a damaged one is left out."""
    found = []
    for key in (layout.job_outcome(job, rank) for rank in range(nodes)):
        if not store.exists(key):
            continue
        with suppress(RunStateError, ValidationError):
            found.append(Outcome.from_bytes(store.read(key), key))
    return found
