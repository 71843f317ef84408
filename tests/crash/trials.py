"""Disturb a run, resume it, and compare: the same results as undisturbed, and nothing committed has changed."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlm_core.config import RunConfig
from steerlm_core.store import open_store
from tests.crash.runners import MISTAKE, PLANNED, Runner, Signal, Write, finish, start
from tests.crash.world import committed, without_times_of_parts
from tests.toy.runs import results

COMMITS = ("manifest.json", "commit.json")
_SHORT_LEASE = 2.0


@dataclass
class Trials:
    """What trials start from, and what must come out.

    Attributes:
        folder: Where they may leave files.
        config: Of their runs.
        expected: The results of the undisturbed run on a disk.
    """

    folder: Path
    config: RunConfig
    expected: dict[str, bytes]

    def resume(self, root: str, **options: Any) -> Runner:
        """Go on with a run, or begin it where it has not come to its first write; check what comes out."""
        before = committed(root)
        new = None if open_store(root).exists("run.json") else self.config
        runner = finish(self.folder, root, new, **options)
        self.check(root, before)
        return runner

    def check(self, root: str, before: dict[str, str]) -> None:
        """Check the results, and that all that was committed before has kept its bytes and its time."""
        assert results(root) == self.expected
        after = committed(root)
        assert {key: after.get(key) for key in before} == before

    def kill_at(self, root: str, at: Signal) -> Runner:
        """Kill a new run at a write, and resume it."""
        runner = start(self.folder, root, self.config, at=at)
        assert runner.end() == -signal.SIGKILL, runner.words
        self.resume(root)
        return runner

    def kill_after(self, root: str, step: str, seconds: float) -> Runner | None:
        """Kill a new run so long after it has taken the lease of a step, and resume it; None: it had ended before."""
        runner = start(self.folder, root, self.config)
        wait_until(lambda: any(write.key == f"leases/{step}.json" for write in runner.writes), runner)
        time.sleep(seconds)
        runner.process.kill()
        if runner.end() == 0:
            return None
        self.resume(root)
        return runner

    def clean(self) -> None:
        """Remove what runners have left behind on this machine."""
        for folder in self.folder.glob("runner-*"):
            shutil.rmtree(folder, ignore_errors=True)


def new_trials(folder: Path, config: RunConfig) -> Trials:
    """Run once undisturbed."""
    root = str(folder / "undisturbed")
    finish(folder, root, config)
    return Trials(folder, config, results(root))


def wait_until(condition: Callable[[], bool], runner: Runner, seconds: float = 60.0) -> None:
    """Wait for something that a running runner does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        assert runner.is_alive, runner.words
        time.sleep(0.002)
    raise AssertionError(f"not within {seconds} s; the runner says: {runner.words}")


def is_stopped(runner: Runner) -> bool:
    """Whether a runner was stopped by SIGSTOP."""
    state = Path(f"/proc/{runner.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def step_seconds(writes: list[Write], steps: tuple[str, ...]) -> dict[str, float]:
    """How long an undisturbed run has had each step's lease."""
    taken = {step: [write.time for write in writes if write.key == f"leases/{step}.json"] for step in steps}
    return {step: times[-1] - times[0] for step, times in taken.items()}


def check_all_at_once(trials: Trials, root: str, count: int) -> None:
    """Start runners at the same moment: all end well with one outcome, and no work is done twice."""
    runners = [start(trials.folder, root, trials.config) for _ in range(count)]
    assert [runner.end() for runner in runners] == [0] * count, [runner.words for runner in runners]
    assert {runner.words for runner in runners} == {"plateau\n"}
    assert results(root) == trials.expected
    work = [write for runner in runners for write in runner.writes if re.fullmatch(PLANNED, write.key)]
    times = Counter(write.key for write in work if write.action == "upload" or write.key.endswith(COMMITS))
    expected = [key for key in committed(root) if key.endswith((".parquet", ".safetensors", *COMMITS))]
    assert {key: times[key] for key in expected} == dict.fromkeys(expected, 1)


def check_a_sleeper(trials: Trials, root: str, key: str, code: int) -> None:
    """Stop a runner past its lease; the other finishes; awake again, the first changes nothing.

    Before it has checked its lease it stops; after that, create-only has it find what the other has committed.
    """
    short = trials.config.runtime.model_copy(update={"lease_seconds": _SHORT_LEASE})
    config = trials.config.model_copy(update={"runtime": short})
    asleep = start(trials.folder, root, config, at=Signal(0, "before", key, signal.SIGSTOP))
    wait_until(lambda: is_stopped(asleep), asleep)
    finish(trials.folder, root, config)
    assert results(root) == trials.expected
    before = committed(root)
    asleep.send(signal.SIGCONT)
    assert asleep.end() == code, asleep.words
    assert results(root) == trials.expected
    assert without_times_of_parts(committed(root)) == without_times_of_parts(before)
    if code == MISTAKE:
        assert "LeaseLostError" in asleep.words
        assert "has taken over. Nothing of this runner is committed" in asleep.words
