"""`steerlm` in this process: its exit code, and what it prints; and the words that start it in one of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

STEERLM = [sys.executable, "-m", "steerlm_core.cli"]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Steerlm = Callable[..., Ended]


def steerlm_in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Steerlm:
    """Return a function that runs the command of its arguments."""

    from steerlm_core.cli import main  # after the environment of tests/conftest.py

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["steerlm", *map(str, words)])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    return run
