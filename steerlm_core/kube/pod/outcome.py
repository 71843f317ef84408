"""The end of a pod as one of a few classes, told by the termination message and by the run root."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path

from steerlm_core import layout
from steerlm_core.errors import NonFiniteError, OutOfMemoryError, SteerLMError, StoreError, StoreRefusedError
from steerlm_core.kube.job.files import End, Outcome
from steerlm_core.kube.pod.stop import StopRequest
from steerlm_core.store.run_store import RunStore
from steerlm_core.training.job import TrainingLostError, TrainingStoppedError

_MESSAGE_BYTES = 2048  # Kubernetes keeps 4096 of a termination message, and 12288 of those of all containers of a pod
_CUT = " […] "

_ENDS: tuple[tuple[type[SteerLMError], End], ...] = (
    (TrainingStoppedError, End.STOPPED),
    (TrainingLostError, End.RETRYABLE),
    (OutOfMemoryError, End.OUT_OF_MEMORY),
    (NonFiniteError, End.NON_FINITE),
    (StoreRefusedError, End.USER_ERROR),
    (StoreError, End.STORE_UNREACHABLE),
    (SteerLMError, End.USER_ERROR),
)

_log = logging.getLogger("steerlm.pod")


def done(rank: int, message: str) -> Outcome:
    """Return the outcome of a pod that did what it was asked."""
    return Outcome(end=End.DONE, message=message, rank=rank, pod=socket.gethostname(), time=time.time())


def failed(rank: int, error: Exception, stop: StopRequest) -> Outcome:
    """Return the outcome of a pod that ended by an error.

    What a pod raises after it was asked to stop is the consequence, unless a rank knows better.
    """
    end = next((end for kind, end in _ENDS if isinstance(error, kind)), End.RETRYABLE)
    message = str(error) if isinstance(error, SteerLMError) else f"{type(error).__name__}: {error}"
    if stop.end is not None and end in (End.STOPPED, End.RETRYABLE, End.STORE_UNREACHABLE):
        end, message = stop.end, stop.message if message == stop.message else f"{stop.message.rstrip('.')}. {message}"
    return Outcome(end=end, message=message, rank=rank, pod=socket.gethostname(), time=time.time())


def write_outcome(outcome: Outcome, store: RunStore | None, job: str, termination_log: Path) -> None:
    """Write an outcome to both places; one that cannot be written costs that copy, no more.

    Args:
        outcome: The outcome.
        store: The run root, opened for few attempts; None: it could not be opened, as the outcome says.
        job: Name of the job.
        termination_log: The file that Kubernetes reads the termination message from.
    """
    try:
        termination_log.write_bytes(shortened(outcome).to_bytes())
    except OSError as error:
        _log.warning("the outcome is not in %s: %s", termination_log, error)
    if store is None or (outcome.end is End.DONE and outcome.rank > 0):
        return
    try:
        store.put(layout.job_outcome(job, outcome.rank), outcome.to_bytes())
    except SteerLMError as error:
        _log.warning("the outcome is not in the run root: %s", error)


def shortened(outcome: Outcome) -> Outcome:
    """Return the outcome with a message that Kubernetes keeps whole: the beginning and the end of a long one."""
    text, kept = outcome.message, outcome
    length = len(text)
    while len(kept.to_bytes()) > _MESSAGE_BYTES:
        length = length * 9 // 10
        half = length // 2
        kept = outcome.model_copy(update={"message": f"{text[:half]}{_CUT}{text[len(text) - half :]}"})
    return kept
