"""Starting training processes, the same way everywhere: `python -m steerlm_core.training.launch JOB.json`.

    already a child of torchrun   (TORCHELASTIC_RUN_ID, LOCAL_RANK)    train
    a pod of a PyTorchJob         (PET_NNODES)                         become torchrun, which reads PET_*
    else                                                               train, or become torchrun by train.processes

`run_torchrun` does the last from within a process that waits: it passes numbers and errors on, and SIGTERM down.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from steerlm_core import layout
from steerlm_core.errors import ConfigError, OutOfMemoryError, SteerLMError
from steerlm_core.processes import end_with_parent
from steerlm_core.training.job import TrainingLostError, TrainingStoppedError, TrainJob, TrainReport, TrainResult
from steerlm_core.training.stop import StopSignal
from steerlm_core.training.supervise import (
    LAST_LINES,
    Lines,
    read_failure,
    read_result,
    supervise,
    write_error,
    write_result,
)

MODULE = "steerlm_core.training.launch"
_STOPPED, _FAILED = 128 + signal.SIGTERM, 2  # exit codes


def main() -> int:
    """Do what the environment asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Train one job.")
    parser.add_argument("job", type=Path, help="the job, as TrainJob.to_json wrote it")
    parser.add_argument("--into", type=Path, help="folder that receives numbers, result and error as JSON")
    arguments = parser.parse_args()
    job = TrainJob.from_json(arguments.job.read_text())
    command = torchrun_command(
        os.environ, job, [str(arguments.job), *(["--into", str(arguments.into)] if arguments.into else [])]
    )
    if command is None:
        return _train_here(job, arguments.into)
    os.execve(sys.executable, command, torchrun_environment(os.environ, tempfile.mkdtemp(prefix="steerlm-")))


def torchrun_command(environment: Mapping[str, str], job: TrainJob, arguments: list[str]) -> list[str] | None:
    """Return the torchrun command that has to run first, or None where this process is to train itself."""
    if "TORCHELASTIC_RUN_ID" in environment and "LOCAL_RANK" in environment:
        return None
    if job.config.engine == "single":
        if int(environment.get("PET_NNODES", "1").split(":")[-1]) > 1:
            raise ConfigError(
                f"train.engine is 'single', but the job has PET_NNODES={environment['PET_NNODES']} nodes. "
                "Set train.engine: deepspeed, or one node."
            )
        return None
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    if "PET_NNODES" not in environment:
        torchrun += ["--standalone", "--nproc-per-node", str(job.config.processes)]
    return [*torchrun, "-m", MODULE, *arguments]


def torchrun_environment(environment: Mapping[str, str], extensions: str) -> dict[str, str]:
    """Return the environment of torchrun.

    A PyTorchJob sets RANK and WORLD_SIZE for the pod, which torchrun's children would take for theirs. Compiled
    extensions go to a folder of the job's own: a killed build leaves a lock that the next would wait for.
    """
    kept = {key: value for key, value in environment.items() if key not in ("RANK", "WORLD_SIZE")}
    return {**kept, "TORCH_EXTENSIONS_DIR": extensions}


def write_job(job: TrainJob, into: Path) -> list[str]:
    """Leave a job in a folder; return the arguments of a process that trains it and leaves its end there."""
    (into / "job.json").write_text(job.to_json())
    return [str(into / "job.json"), "--into", str(into)]


def run_torchrun(job: TrainJob, report: TrainReport | None = None) -> TrainResult:
    """Train in `job.config.processes` processes of this machine, and wait for them.

    Args:
        job: What to train.
        report: Receives the numbers of each step.

    Raises:
        SteerLMError: Training has failed: the error of the rank that raised one, else the last lines it printed.
        TrainingStoppedError: SIGTERM came; a checkpoint has been written.
    """
    log = job.output.parent / layout.TORCHRUN_LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="steerlm-") as name, StopSignal() as stop:
        into = Path(name)
        command = torchrun_command({}, job, write_job(job, into))
        if command is None:
            raise ConfigError(
                "train.engine is 'single': there is nothing for torchrun to start. Set it to 'deepspeed'."
            )
        with log.open("wb") as out:
            environment = torchrun_environment(os.environ, name)
            code = supervise(command, environment, out.fileno(), into, stop, report, end_with_parent)
        if code == 0:
            return read_result(into)
        last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        raise read_failure(into, code, last, f"Everything they printed is in {log}; the last lines:")


def _train_here(job: TrainJob, into: Path | None) -> int:
    """Train in this process; leave result or error in `into`."""
    from steerlm_core.training.run import train

    end_with_parent()
    rank = int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s rank {rank} %(name)s: %(message)s")
    try:
        result = train(job, report=None if into is None else Lines(into))
    except Exception as error:
        known = error if isinstance(error, SteerLMError) else _named(error)
        print(f"{type(known).__name__}: {known}", file=sys.stderr)
        if into is not None:
            write_error(into, rank, known)
        if isinstance(known, TrainingLostError):
            raise
        return _STOPPED if isinstance(error, TrainingStoppedError) else _FAILED
    if rank == 0 and into is not None:
        write_result(into, result)
    return 0


def _named(error: Exception) -> SteerLMError:
    """Say what has happened to a rank that raised no error of ours."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return OutOfMemoryError(f"{error} Lower train.token_budget, raise train.zero_stage, or use more memory.")
    return TrainingLostError(f"{type(error).__name__}: {error}")


def _leave(code: int) -> NoReturn:
    """End this process without the interpreter's own way out, on which a collective's threads may abort it.

    Everything is written by then, and an abort would make a failure of a success.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
