"""Runners as processes of their own, which can be killed at any write to the store.

They are forked from a server that has imported everything, so that one costs a fraction of a second instead of ten.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import botocore.retryhandler
import transformers.models.llama.modeling_llama  # noqa: F401

import steerlm_core.store.s3 as s3
from steerlm_core.config import RunConfig
from steerlm_core.errors import SteerLMError
from steerlm_core.observe.event_store import event_sink
from steerlm_core.observe.events import EventLog
from steerlm_core.store import open_store
from steerlm_core.store.local import LocalObjects
from tests.runs import loop_at, run_at

_WRITES = ("put", "create", "swap", "upload", "delete")
PLANNED = r"(?!leases/|events/|.*/checkpoints/).*"  # keys whose writes do not depend on the clock
MISTAKE = 2  # exit code of a SteerLMError

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload([__name__])
# Every start and every look reads the exit codes of all processes that have ended, and each can be read once: of two
# threads that look at the same moment one would find nothing, and make that an exit code of 255.
_polling = threading.Lock()


@dataclass(frozen=True)
class Signal:
    """A signal that a runner sends to itself at a write.

    Attributes:
        number: Counts the writes to such keys, from 0.
        when: Just before the write, or just after it.
        keys: A regular expression.
        signal: SIGKILL, or SIGSTOP.
    """

    number: int
    when: str = "before"
    keys: str = PLANNED
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Write:
    """One write of a runner: seconds on the machine's monotonic clock when it began."""

    time: float
    action: str
    key: str


@dataclass
class Runner:
    """A process that runs the loop at a root.

    Attributes:
        process: It.
        folder: Where it leaves its journal and its words.
    """

    process: Any
    folder: Path
    started: float = field(default_factory=time.monotonic)

    def end(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        wait([self.process.sentinel])
        with _polling:
            self.process.join()
            return int(self.process.exitcode)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        with _polling:
            return bool(self.process.is_alive())

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    @property
    def words(self) -> str:
        """What it has said, errors included."""
        return (self.folder / "words").read_text()

    @property
    def writes(self) -> list[Write]:
        """Its writes to the store so far."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        pieces = [line.split() for line in lines if line.endswith("\n")]
        return [Write(float(when), action, key) for when, action, key in pieces]


def start(
    folder: Path,
    root: str,
    config: RunConfig | None = None,
    *,
    at: Signal | None = None,
    environment: Mapping[str, str] | None = None,
    waits: float = 1.0,
    **settings: Any,
) -> Runner:
    """Start a runner.

    Args:
        folder: Where it may leave files of its own.
        root: The run root.
        config: Of a new run; None: go on with the one that is there.
        at: Where it sends a signal to itself.
        environment: Of the process, beyond this one's AWS settings.
        waits: Scales the waits of botocore between two attempts.
        settings: Constants of `steerlm_core.store.s3`, for time-outs that a test can wait for.
    """
    place = folder / f"runner-{uuid.uuid4().hex}"
    place.mkdir(parents=True)
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = _fork.Process(
        target=_main, args=(place, root, config, at, {**aws, **(environment or {})}, waits, settings)
    )
    with _polling:
        process.start()
    return Runner(process, place)


def finish(folder: Path, root: str, config: RunConfig | None = None, **options: Any) -> Runner:
    """Run to the end, which must be a good one."""
    runner = start(folder, root, config, **options)
    assert runner.end() == 0, runner.words
    return runner


def _main(
    folder: Path,
    root: str,
    config: RunConfig | None,
    at: Signal | None,
    environment: Mapping[str, str],
    waits: float,
    settings: Mapping[str, Any],
) -> None:
    words = os.open(folder / "words", os.O_WRONLY | os.O_CREAT)
    os.dup2(words, 1)
    os.dup2(words, 2)
    os.environ.update(environment)
    tempfile.tempdir = str(folder)
    for name, value in settings.items():
        assert hasattr(s3, name)
        setattr(s3, name, value)
    long = botocore.retryhandler.delay_exponential
    botocore.retryhandler.delay_exponential = lambda *given, **named: waits * long(*given, **named)
    _watch_writes(folder / "journal", at)
    try:
        run = run_at(root, config)
        log = EventLog(run.run_id, event_sink(open_store(root)))
        try:
            print(loop_at(root, config, log=log)["kind"])
        finally:
            log.close()
    except SteerLMError as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(MISTAKE)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def _watch_writes(journal: Path, at: Signal | None) -> None:
    """Write down every write of this process to a store, and send it the signal at the chosen one."""
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    inside, lock, seen = threading.local(), threading.Lock(), [0]

    def here(key: str, when: str) -> bool:
        """Whether the signal is due; counts before each write."""
        if at is None or not re.fullmatch(at.keys, key):
            return False
        with lock:
            seen[0] += when == "before"
            return seen[0] == at.number + 1 and when == at.when

    def watched(action: str, right: Callable[..., Any]) -> Callable[..., Any]:
        def write(self: Any, key: str | Iterable[str], *rest: Any, **options: Any) -> Any:
            if getattr(inside, "a_write", False):  # a write that is made of others
                return right(self, key, *rest, **options)
            keys = [key] if isinstance(key, str) else list(key)
            os.write(file, f"{time.monotonic()} {action} {keys[0]}\n".encode())
            inside.a_write = True
            try:
                if here(keys[0], "before"):
                    os.kill(os.getpid(), at.signal)
                done = right(self, key if isinstance(key, str) else keys, *rest, **options)
                if here(keys[0], "after"):
                    os.kill(os.getpid(), at.signal)
                return done
            finally:
                inside.a_write = False

        return write

    for kind in (LocalObjects, s3.S3Objects):
        for action in _WRITES:
            setattr(kind, action, watched(action, getattr(kind, action)))
