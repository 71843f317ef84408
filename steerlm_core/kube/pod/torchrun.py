"""torchrun as a child of the pod's process: its output goes to the pod's log, its last lines are kept."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from steerlm_core.errors import OutOfMemoryError
from steerlm_core.kube.pod.stop import StopRequest
from steerlm_core.processes import end_with_parent
from steerlm_core.training.job import TrainingLostError, TrainJob, TrainReport, TrainResult
from steerlm_core.training.launch import MODULE, torchrun_command, torchrun_environment, write_job
from steerlm_core.training.supervise import LAST_LINES, read_failure, read_result, supervise

# Of the container's own cgroup, version 2 and version 1; both have a line `oom_kill <count>`.
_CGROUPS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


def train_node(job: TrainJob, leads: bool, stop: StopRequest, report: TrainReport) -> TrainResult | None:
    """Run this node's ranks to their end.

    Args:
        job: What to train.
        leads: Whether rank 0 is of this node.
        stop: Once it has come, the ranks write a checkpoint and end.
        report: Receives the numbers of each step, where rank 0 is.

    Returns:
        The result, where rank 0 is.

    Raises:
        SteerLMError: The error of the rank that raised one, or what was seen of the end.
    """
    killed = oom_kills()
    with tempfile.TemporaryDirectory(prefix="steerlm-") as name, _Log() as log:
        into = Path(name)
        arguments = write_job(job, into)
        command = torchrun_command(os.environ, job, arguments) or [sys.executable, "-m", MODULE, *arguments]
        environment = torchrun_environment(os.environ, name)
        code = supervise(command, environment, log.write_end, into, stop, report, end_with_parent)
        log.close()
        if code == 0:
            return read_result(into) if leads else None
        failure = read_failure(into, code, log.last, "The last lines:")
    if isinstance(failure, TrainingLostError) and oom_kills() > killed:
        raise OutOfMemoryError(
            "the kernel has killed a process of this pod, which had reached its memory limit. Raise "
            "train_job.resources.memory of the platform file, or lower train.token_budget."
        )
    raise failure


def oom_kills() -> int:
    """Return how many processes of this container the kernel has killed for want of memory."""
    for path in _CGROUPS:
        if path.is_file():
            counts = dict(line.split() for line in path.read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0


def node_rank(environment: Mapping[str, str]) -> int:
    """Return the rank of this node, by the environment that the operator makes."""
    return int(environment.get("PET_NODE_RANK", "0"))


def world_size(environment: Mapping[str, str]) -> int:
    """Return the number of ranks of all nodes."""
    return int(environment.get("PET_NNODES", "1")) * int(environment.get("PET_NPROC_PER_NODE", "1"))


class _Log:
    """A pipe whose lines go to standard output as they come, and whose last lines are kept."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._thread = threading.Thread(target=self._pass_on, name="log", daemon=True)
        self._open = True

    def __enter__(self) -> _Log:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last(self) -> list[str]:
        """The last lines."""
        return list(self._last)

    def close(self) -> None:
        """Close this side, and take what is left."""
        if self._open:
            self._open = False
            os.close(self.write_end)
            self._thread.join(timeout=5)  # a process that was left behind would keep the pipe open

    def _pass_on(self) -> None:
        with os.fdopen(self._read_end, errors="replace") as lines:
            for line in lines:
                sys.stdout.write(line)
                sys.stdout.flush()
                self._last.append(line.rstrip("\n"))
