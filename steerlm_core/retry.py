"""Trying again what may succeed in a moment: for so many seconds, with jittered pauses, by the caller's word for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import tenacity

Pauses = Callable[[tenacity.RetryCallState], float]
T = TypeVar("T")

_LONGEST_PAUSE = 10.0


def growing(first: float) -> Pauses:
    """Return pauses that double from so many seconds up to ten, each half as long or half as long again by chance."""
    steps = tenacity.wait_exponential(multiplier=first, max=_LONGEST_PAUSE)
    return lambda state: steps(state) * random.uniform(0.5, 1.5)


_PAUSES = growing(0.25)


def retry_for(
    seconds: float,
    action: Callable[[], T],
    may_pass: Callable[[BaseException, float], bool],
    pauses: Pauses = _PAUSES,
    waits: Callable[[BaseException], None] = lambda error: None,
) -> T:
    """Return what an action returns, tried again while its error may pass; raise the last after so many seconds.

    Args:
        seconds: How long to try.
        action: It must be safe to repeat.
        may_pass: Whether an error may pass, given the seconds since the first try.
        pauses: Between two tries.
        waits: Is told of an error before each pause.
    """
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_delay(seconds),
        wait=pauses,
        retry=lambda state: (error := _error(state)) is not None and may_pass(error, state.seconds_since_start or 0.0),
        before_sleep=lambda state: waits(_error(state) or AssertionError()),
        reraise=True,
    )
    return retrying(action)


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
