"""One row of what `doctor` finds out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from steerlm_core.kube.api.client import ForbiddenError


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    UNKNOWN = "?"
    WARNING = "!"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and the command that repairs it.

    Attributes:
        what: What was looked at.
        state: How it came out; training cannot work where one has failed.
        found: In words.
        repair: A command, or what to do; empty where there is nothing to do.
    """

    what: str
    state: State
    found: str
    repair: str = ""


def unless_forbidden(what: str, look: Callable[[], Check]) -> Check:
    """Return what a look finds, or that this account may not look."""
    try:
        return look()
    except ForbiddenError as error:
        return Check(what, State.UNKNOWN, f"this account may not look: {error}")
