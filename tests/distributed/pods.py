"""Pods as plain processes of this machine: the environment that the operator makes, on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from steerlm_core import layout
from steerlm_core.kube.job.files import Heartbeat, Progress
from steerlm_core.store import open_store

JOB = "train-0123456789-0"
ROOT = Path(__file__).resolve().parents[2]
_MAIN = (
    "import sys; from pathlib import Path; from steerlm_core.kube.pod import main;"
    "main._PATIENCE_SECONDS = float(sys.argv[1]);"
    "sys.exit(main.main(sys.argv[3:], Path(sys.argv[2])))"
)


class Pod:
    """One node's process."""

    def __init__(self, folder: Path, root: str, rank: int, nodes: int, port: int, words: list[str], patience: float):
        self.message, self.log = folder / f"termination-{rank}", folder / f"pod-{rank}.log"
        told = ["--root", root, "--job", JOB, "--iteration", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(patience), str(self.message), *told, *words],
                env={**os.environ, **environment(rank, nodes, port), "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, seconds: float = 120) -> tuple[int, dict[str, Any]]:
        """Wait; return exit code and termination message."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(self.log.read_text()[-4000:]) from error
        assert self.message.exists(), self.log.read_text()[-4000:]
        assert self.message.stat().st_size <= 4096
        return code, json.loads(self.message.read_text())

    def ranks(self) -> list[psutil.Process]:
        """The processes that train."""
        return [
            each
            for each in psutil.Process(self.process.pid).children(recursive=True)
            if "steerlm_core.training.launch" in each.cmdline() and "torch.distributed.run" not in each.cmdline()
        ]


def environment(rank: int, nodes: int, port: int) -> dict[str, str]:
    """What training-operator 1.9 sets in a pod."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(nodes)}
    torchrun = {
        "NNODES": nodes,
        "NODE_RANK": rank,
        "NPROC_PER_NODE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    return common | {f"PET_{name}": str(value) for name, value in torchrun.items()}


@contextmanager
def pods(folder: Path, root: str, *words: str, nodes: int = 2, patience: float = 60) -> Iterator[list[Pod]]:
    """Start all nodes; whatever is left of them at the end is killed."""
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [Pod(folder, root, rank, nodes, port, list(words), patience) for rank in range(nodes)]
    try:
        yield started
    finally:
        for pod in started:
            family = [pod.process.pid, *_descendants(pod.process.pid)]
            for pid in family:
                try:
                    psutil.Process(pid).kill()
                except psutil.NoSuchProcess:
                    continue
            pod.process.wait()


def _descendants(pid: int) -> list[int]:
    try:
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def step(root: str) -> int:
    """Steps done, as the launcher sees it."""
    found = open_store(root).read_versioned(layout.job_progress(JOB))
    return Progress.model_validate_json(found[0]).step if found else 0


@contextmanager
def heartbeat(root: str, seconds: float = 0.2) -> Iterator[None]:
    """Watch the job as a launcher does."""
    end = threading.Event()

    def beat() -> None:
        store, counter = open_store(root), 0
        while not end.wait(seconds):
            counter += 1
            beat = Heartbeat(launcher="test", counter=counter, time=time.time())
            store.put(layout.job_heartbeat(JOB), beat.model_dump_json().encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
