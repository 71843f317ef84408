"""Why a pod should end before it is done: it was told to, or nobody watches it."""

from __future__ import annotations

import signal
import time
from types import FrameType

from steerlm_core import layout
from steerlm_core.errors import StoreError
from steerlm_core.kube.job.files import End, Heartbeat
from steerlm_core.periodic import Periodic
from steerlm_core.store.run_store import RunStore
from steerlm_core.training.job import TrainingStoppedError

_LOOKS = 20  # in the time after which a job is an orphan
_MOST_SECONDS = 10.0  # between two looks


class StopRequest:
    """The first wish to stop, and its words. Until training begins a SIGTERM interrupts whatever is going on."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.end: End | None = None
        self.message = ""
        self._interrupts = True

    @property
    def came(self) -> bool:
        """Whether anybody has asked."""
        return self.end is not None

    def ask(self, end: End, message: str) -> None:
        """Ask to stop; the first to ask names the end."""
        if self.end is None:
            self.message, self.end = message, end

    def listen(self) -> None:
        """Take SIGTERM for a wish, from the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def begin(self) -> None:
        """Training begins: from here on it is asked to stop, and what it has done is stored.

        Raises:
            TrainingStoppedError: Somebody has asked already.
        """
        self.settle()
        if self.came:
            raise TrainingStoppedError(self.message)

    def settle(self) -> None:
        """From here on a SIGTERM interrupts nothing."""
        self._interrupts = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.ask(End.STOPPED, "stopped by SIGTERM")
        if self._interrupts:
            raise TrainingStoppedError(self.message)


class HeartbeatWatch:
    """Asks to stop when the launcher's heartbeat has not changed for a while, on this pod's own clock."""

    def __init__(self, store: RunStore, job: str, seconds: float, stop: StopRequest) -> None:
        """Name what is watched.

        Args:
            store: The run root.
            job: Name of the job.
            seconds: So long without a heartbeat, and the job is an orphan.
            stop: Whom to ask.
        """
        self._store, self._key, self._seconds, self._stop = store, layout.job_heartbeat(job), seconds, stop
        self._seen: tuple[str, int] | None = None
        self._since = time.monotonic()
        self._looks = Periodic(self._look, min(seconds / _LOOKS, _MOST_SECONDS), "heartbeat")
        self._looks.start()

    def _look(self) -> None:
        try:
            counter, problem = self._counter(), ""
        except (StoreError, ValueError) as error:
            counter, problem = self._seen, f"{error}"
        if counter != self._seen:
            self._seen, self._since = counter, time.monotonic()
        elif time.monotonic() - self._since > self._seconds:
            self._give_up(problem)
        if self._stop.came:
            self._looks.stop()

    def _counter(self) -> tuple[str, int] | None:
        found = self._store.read_versioned(self._key)
        if found is None:
            return None
        heartbeat = Heartbeat.model_validate_json(found[0])
        return heartbeat.launcher, heartbeat.counter

    def _give_up(self, problem: str) -> None:
        if problem:
            self._stop.ask(End.STORE_UNREACHABLE, f"the run root was not to be read for {self._seconds:g} s: {problem}")
        else:
            self._stop.ask(
                End.ORPHANED,
                f"no launcher has watched this job for {self._seconds:g} s ({self._store.url(self._key)} does not "
                "change): it ends itself. Starting the step again continues from its checkpoint.",
            )
