"""What kfp.local prints, read line by line: shows the steps' own words, and keeps their last ones for an error.

kfp.local runs every step in a process of its own and prints its output, indented, between log lines of its own. A step
that fails is reported as "Inner task failed"; the reason stands only in the traceback that the step printed.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Sequence
from typing import TextIO

from steerlm_core import errors

_TASK = re.compile(r"Executing task .*'([\w-]+?)(?:-\d+)?'")  # the second use of a component is called NAME-2
_OURS = re.compile(r"steerlm_core\.errors\.(\w+): (.*)")
_INDENT = "    "


def own_error(traceback: Sequence[str]) -> errors.SteerLMError | None:
    """Return the error of ours that the lines of a traceback end with, if it is one."""
    ours = [(number, found) for number, line in enumerate(traceback) if (found := _OURS.match(line))]
    if not ours:
        return None
    number, found = ours[-1]
    kind: type[errors.SteerLMError] = getattr(errors, found[1], errors.SteerLMError)
    return kind("\n".join([found[2], *traceback[number + 1 :]]).rstrip())


class StepOutput(io.TextIOBase):
    """A stream for kfp.local to print to; passes on what a person wants to read.

    kfp.local runs shards in threads of their own, so every thread's lines are read apart.
    """

    def __init__(self, shown: TextIO) -> None:
        """Name the stream that receives the steps' own lines."""
        self._shown = shown
        self._threads: dict[int, _Thread] = {}
        self._failed: _Thread | None = None

    def write(self, text: str) -> int:
        """Take what kfp.local prints."""
        thread = self._threads.setdefault(threading.get_ident(), _Thread(self._shown))
        thread.take(text)
        if thread.in_traceback:
            self._failed = thread
        return len(text)

    def failure(self) -> Exception | None:
        """Return the error that the last step ended with: one of ours by its message alone, any other in full."""
        return self._failed.failure() if self._failed else None


class _Thread:
    """The lines of one thread."""

    def __init__(self, shown: TextIO) -> None:
        self._shown = shown
        self._line = ""
        self._step = ""
        self._indent = len(_INDENT)  # kfp.local indents deeper with every two tasks that have run at once
        self._streaming = False
        self._input: list[str] | None = None
        self._traceback: list[str] = []

    @property
    def in_traceback(self) -> bool:
        return bool(self._traceback)

    def take(self, text: str) -> None:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._take(line)

    def failure(self) -> Exception | None:
        if ours := own_error(self._traceback):
            return ours
        if self._traceback:
            return RuntimeError(f"step '{self._step}' failed\n" + "\n".join(self._traceback).rstrip())
        return None

    def _take(self, line: str) -> None:
        if not line.startswith(_INDENT):
            self._take_kfp(line)
        elif self._streaming:
            if "[KFP Executor " in line:
                self._indent = len(line) - len(line.lstrip())
            self._take_own(line[self._indent :])

    def _take_kfp(self, line: str) -> None:
        """A log line of kfp.local: tells whose output follows, and when it has ended."""
        if found := _TASK.search(line):
            self._step, self._traceback = found[1].replace("-", "_"), []
        if line:
            self._streaming = line.endswith("Streamed logs:")

    def _take_own(self, line: str) -> None:
        """A line of the step's process: its input, a traceback, or its own words."""
        if self._input is not None:
            self._take_input(line)
        elif line.startswith("[KFP Executor "):
            self._input = [] if line.endswith("Got executor_input:") else None
        elif self._traceback or line.startswith("Traceback (most recent call last)"):
            self._traceback.append(line)
        elif line:
            self._show(_INDENT + line)

    def _take_input(self, line: str) -> None:
        """The step's input is JSON over several lines; the iteration stands in it."""
        assert self._input is not None
        self._input.append(line)
        if line != "}":
            return
        given = json.loads("".join(self._input))["inputs"].get("parameterValues", {})
        self._input = None
        if self._step != "gate":
            self._show(f"iteration {given['iteration']}: {self._step}" if "iteration" in given else self._step)

    def _show(self, line: str) -> None:
        self._shown.write(line + "\n")  # not print: kfp.local puts its own in place of it
        self._shown.flush()
