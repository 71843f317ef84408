"""Starting training processes, the same way everywhere: `python -m steerlm_core.training.launch JOB.json`.

    already a child of torchrun   (TORCHELASTIC_RUN_ID, LOCAL_RANK)    train
    a pod of a PyTorchJob         (PET_NNODES)                         become torchrun, which reads PET_*
    else                                                               train, or become torchrun by train.processes

`run_torchrun` does the last from within a process that waits: it passes numbers and errors on, and SIGTERM down.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from steerlm_core import errors
from steerlm_core.errors import ConfigError, SteerLMError
from steerlm_core.training.job import TrainingStoppedError, TrainJob, TrainReport, TrainResult
from steerlm_core.training.stop import StopSignal

_MODULE = "steerlm_core.training.launch"
_POLL_SECONDS = 0.1
_LAST_LINES = 20
_STOPPED, _FAILED = 128 + signal.SIGTERM, 2  # exit codes


def main() -> int:
    """Do what the environment asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Train one job.")
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
    return [*torchrun, "-m", _MODULE, *arguments]


def torchrun_environment(environment: Mapping[str, str], extensions: str) -> dict[str, str]:
    """Return the environment of torchrun.

    A PyTorchJob sets RANK and WORLD_SIZE for the pod, which torchrun's children would take for theirs. Compiled
    extensions go to a folder of the job's own: a killed build leaves a lock that the next would wait for.
    """
    kept = {key: value for key, value in environment.items() if key not in ("RANK", "WORLD_SIZE")}
    return {**kept, "TORCH_EXTENSIONS_DIR": extensions}


def run_torchrun(job: TrainJob, report: TrainReport | None = None) -> TrainResult:
    """Train in `job.config.processes` processes of this machine, and wait for them.

    Args:
        job: What to train.
        report: Receives the numbers of each step.

    Raises:
        SteerLMError: Training has failed: the error of the rank that raised one, else the last lines it printed.
        TrainingStoppedError: SIGTERM came; a checkpoint has been written.
    """
    log = job.output.parent / "torchrun.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="steerlm-") as name, StopSignal() as stop:
        into = Path(name)
        (into / "job.json").write_text(job.to_json())
        command = torchrun_command({}, job, [str(into / "job.json"), "--into", name])
        if command is None:
            raise ConfigError(
                "train.engine is 'single': there is nothing for torchrun to start. Set it to 'deepspeed'."
            )
        with log.open("wb") as out:
            code = _wait(command, torchrun_environment(os.environ, name), out.fileno(), into, stop, report)
        if code == 0:
            return TrainResult(**json.loads((into / "result.json").read_text()))
        raise _failure(into, code, log)


def _wait(
    command: list[str], environment: dict[str, str], out: int, into: Path, stop: StopSignal, report: TrainReport | None
) -> int:
    """Run torchrun to its end, passing numbers on as they come and SIGTERM down once; return its exit code."""
    child = subprocess.Popen(
        command, env=environment, stdout=out, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent
    )
    told, passed_on = 0, False
    try:
        while True:
            code = child.poll()
            told = _tell(into / "numbers.jsonl", told, report)
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


def _failure(into: Path, code: int, log: Path) -> SteerLMError:
    for path in sorted(into.glob("error-*.json")):
        kind, message = json.loads(path.read_text())
        known = {**vars(errors), "TrainingStoppedError": TrainingStoppedError}
        return known.get(kind, SteerLMError)(message)  # type: ignore[no-any-return]
    last = "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    return SteerLMError(
        f"training processes ended with exit code {code}. Run again: it continues from the last checkpoint. "
        f"Everything they printed is in {log}; the last lines:\n{last}"
    )


def _train_here(job: TrainJob, into: Path | None) -> int:
    """Train in this process; leave result or error in `into`."""
    from steerlm_core.training.run import train

    _end_with_parent()
    rank = int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s rank {rank} %(name)s: %(message)s")
    if rank == 0 and "STEERLM_METRICS_PORT" in os.environ:
        importlib.import_module("prometheus_client").start_http_server(int(os.environ["STEERLM_METRICS_PORT"]))
    try:
        result = train(job, report=None if into is None else _Lines(into / "numbers.jsonl"))
    except SteerLMError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if into is not None:
            _write(into / f"error-{rank}.json", [type(error).__name__, str(error)])
        return _STOPPED if isinstance(error, TrainingStoppedError) else _FAILED
    if rank == 0 and into is not None:
        _write(into / "result.json", {"steps": result.steps, "metrics": dict(result.metrics)})
    return 0


class _Lines:
    """Reports as JSON lines, for the process that waits."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([step, steps, dict(numbers)]) + "\n")


def _write(path: Path, value: object) -> None:
    path.with_suffix(".part").write_text(json.dumps(value))
    path.with_suffix(".part").rename(path)


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent dies, so that a killed run leaves no trainer behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main())
