"""What is tried again, for how long, and with which pauses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from steerlm_core.retry import growing, retry_for


class MomentaryError(Exception):
    pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes in pauses alone; these are the pauses."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("time.monotonic", lambda: sum(pauses))
    return pauses


def fails(times: int) -> Any:
    """Return an action that fails so often, and then says how often it was tried."""
    tries = iter(range(1, 1000))

    def action() -> int:
        if (number := next(tries)) <= times:
            raise MomentaryError(f"try {number}")
        return number

    return action


def may_pass(error: BaseException, seconds: float) -> bool:
    return isinstance(error, MomentaryError)


def test_what_may_pass_is_tried_again_and_said_before_each_pause(clock: list[float]) -> None:
    said: list[str] = []
    assert retry_for(60.0, fails(3), may_pass, waits=lambda error: said.append(str(error))) == 4
    assert said == ["try 1", "try 2", "try 3"]
    assert len(clock) == 3


def test_pauses_double_up_to_ten_seconds_and_are_spread_by_half() -> None:
    pauses = growing(0.25)
    for number, middle in enumerate((0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0), 1):
        drawn = [pauses(SimpleNamespace(attempt_number=number)) for _ in range(200)]  # type: ignore[arg-type]
        assert 0.5 * middle <= min(drawn) < 0.7 * middle
        assert 1.3 * middle < max(drawn) <= 1.5 * middle


def test_the_last_error_is_raised_when_the_time_is_over(clock: list[float]) -> None:
    with pytest.raises(MomentaryError, match="try 4"):
        retry_for(3.0, fails(99), may_pass, lambda state: 1.0)
    assert clock == [1.0, 1.0, 1.0]


def test_what_cannot_pass_is_raised_at_once_and_what_passes_for_a_while_in_its_time(clock: list[float]) -> None:
    with pytest.raises(MomentaryError, match="try 1"):
        retry_for(60.0, fails(1), lambda error, seconds: False)
    with pytest.raises(MomentaryError, match="try 3"):
        retry_for(60.0, fails(99), lambda error, seconds: seconds < 2, lambda state: 1.0)
    with pytest.raises(KeyboardInterrupt):
        retry_for(60.0, interrupted, may_pass)


def interrupted() -> None:
    raise KeyboardInterrupt
