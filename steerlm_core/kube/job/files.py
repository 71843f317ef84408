"""What launcher and pods say to each other, below `jobs/<job>/` in the run root: all that they share.

    heartbeat.json          the launcher watches        written by the launcher, read by the pod of rank 0
    progress.json           training goes on            written by the pod of rank 0, read by the launcher
    outcome.json            how the attempt ended       written by the pod of rank 0, sealed
    outcome-<node>.json     how another pod ended, if not well
    logs/<pod>.log          logs of failed pods         written by the launcher

Counters and steps are compared, never clocks.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from steerlm_core.store.sealed import seal, unseal

PROGRESS_SECONDS = 10.0  # between two writes of the progress


class End(StrEnum):
    """How a pod ended."""

    DONE = "done"
    USER_ERROR = "user_error"
    RETRYABLE = "retryable"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    ORPHANED = "orphaned"
    STOPPED = "stopped"
    STORE_UNREACHABLE = "store_unreachable"


class Outcome(BaseModel):
    """The end of one pod, for the launcher and for people.

    Attributes:
        end: The class; the stored field is named `class`.
        message: What was seen and what to do, in words.
        rank: Node rank of the pod; 0 decides.
        pod: Its name.
        time: Seconds since the epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    end: End = Field(alias="class")
    message: str
    rank: int
    pod: str
    time: float

    def to_bytes(self) -> bytes:
        """The outcome as it is stored."""
        return seal(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Read what `to_bytes` wrote; `where` names it in messages."""
        return cls.model_validate(unseal(data, where))


class Heartbeat(BaseModel):
    """The launcher's sign of life; pods compare counters, never clocks.

    Attributes:
        launcher: Who watches.
        counter: Grows with every heartbeat.
        time: Seconds since the epoch, for people.
    """

    launcher: str
    counter: int
    time: float


class Progress(BaseModel):
    """How far training is.

    Attributes:
        step: Optimizer steps done.
        steps: Of how many.
        loss: Of the last global batch.
        time: Seconds since the epoch, by the pod's clock.
    """

    step: int
    steps: int
    loss: float
    time: float
