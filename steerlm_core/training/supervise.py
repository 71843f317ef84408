"""Training processes and the process that waits for them: what they leave in a folder, and how it is read.

    numbers.jsonl      of each step, by rank 0
    error-<rank>.json  what a rank has raised: type and message
    result.json        by rank 0, at the end

Files appear whole; the numbers are lines.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from steerlm_core import errors
from steerlm_core.errors import SteerLMError
from steerlm_core.training.job import TrainingLostError, TrainingStoppedError, TrainReport, TrainResult

LAST_LINES = 20
_NUMBERS, _RESULT = "numbers.jsonl", "result.json"
_POLL_SECONDS = 0.1


class Stop(Protocol):
    """A wish to stop."""

    @property
    def came(self) -> bool:
        """Whether it has come."""


class Lines:
    """Reports as JSON lines, for the process that waits."""

    def __init__(self, into: Path) -> None:
        """Name the folder."""
        self._path = into / _NUMBERS

    def __call__(self, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        """Add a line."""
        with self._path.open("a") as file:
            file.write(json.dumps([step, steps, dict(numbers)]) + "\n")


def write_error(into: Path, rank: int, error: SteerLMError) -> None:
    """Leave what a rank has raised."""
    _write(into / f"error-{rank}.json", [type(error).__name__, str(error)])


def write_result(into: Path, result: TrainResult) -> None:
    """Leave the result."""
    _write(into / _RESULT, asdict(result))


def read_result(into: Path) -> TrainResult:
    """Read the result; it is where rank 0 was."""
    return TrainResult(**json.loads((into / _RESULT).read_text()))


def read_failure(into: Path, code: int, said: Sequence[str], where: str) -> SteerLMError:
    """Return why training has ended with an exit code other than 0.

    Args:
        into: The folder.
        code: The exit code.
        said: The last lines that the processes printed.
        where: What these lines are, for the message.
    """
    found = [_error(path) for path in sorted(into.glob("error-*.json"))]
    # A rank that lost its peer is the consequence; another may know the cause.
    known = [error for error in found if not isinstance(error, TrainingLostError)]
    if known:
        return known[0]
    seen = "".join(f" {error}." for error in found[:1])
    return TrainingLostError(
        f"training processes ended with exit code {code}.{seen} Run again: it continues from the last checkpoint. "
        f"{where}\n" + "\n".join(said)
    )


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    out: int,
    into: Path,
    stop: Stop,
    report: TrainReport | None,
    before: Callable[[], None] | None = None,
) -> int:
    """Run training processes to their end, passing numbers on as they come and a stop down once.

    Args:
        command: What starts them.
        environment: Of the command.
        out: File descriptor that takes all they print.
        into: The folder they leave things in.
        stop: Once it has come, they get SIGTERM.
        report: Receives the numbers of each step.
        before: Called in the new process before it becomes the command.

    Returns:
        The exit code.
    """
    child = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, preexec_fn=before)
    told, passed_on = 0, False
    try:
        while True:
            code = child.poll()
            told = _tell(into / _NUMBERS, told, report)
            if code is not None:
                return code
            if stop.came and not passed_on:
                child.terminate()
                passed_on = True
            time.sleep(_POLL_SECONDS)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _tell(path: Path, told: int, report: TrainReport | None) -> int:
    """Report the complete lines behind the first `told` bytes; return how many bytes have been reported."""
    if report is None or not path.exists():
        return told
    with path.open("rb") as file:
        file.seek(told)
        whole, newline, _ = file.read().rpartition(b"\n")
    for line in whole.splitlines():
        step, steps, numbers = json.loads(line)
        report(step, steps, numbers)
    return told + len(whole) + len(newline)


def _error(path: Path) -> SteerLMError:
    kind, message = json.loads(path.read_text())
    known = {**vars(errors), "TrainingStoppedError": TrainingStoppedError, "TrainingLostError": TrainingLostError}
    return known.get(kind, SteerLMError)(message)  # type: ignore[no-any-return]


def _write(path: Path, value: object) -> None:
    path.with_suffix(".part").write_text(json.dumps(value))
    path.with_suffix(".part").rename(path)
