"""A launcher as a user starts one: `steerlm step train`, in a process of its own, with its words noted as they come."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlm_core.store import open_store
from tests.cluster.kit import ROOT, kubectl, objects
from tests.in_process import STEERLM
from tests.waiting import until


class Launched:
    """A launcher that trains iteration 0 of a run.

    Attributes:
        lines: What it has said, with the time of each line.
        killed: Whether it was sent a signal.
    """

    def __init__(self, root: str, platform: Path, environment: Mapping[str, str], namespace: str) -> None:
        """Start it."""
        self.root, self.namespace = root, namespace
        self.lines: list[tuple[float, str]] = []
        self.killed = False
        words = [
            "step",
            "train",
            "--root",
            root,
            "--iteration",
            "0",
            "--backend",
            "pytorchjob",
            "--platform",
            str(platform),
        ]
        self.process = subprocess.Popen(
            [*STEERLM, *words], cwd=ROOT, env={**os.environ, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        """Everything that it has said."""
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, pattern: str, seconds: float) -> float:
        """Wait for a line; returns when it came."""
        return until(f"'{pattern}' in\n{self.said}\n", lambda: self._when(pattern), seconds, 0.05)

    def ended(self, seconds: float) -> int:
        """Wait for the end; returns the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s:\n{self.said}") from None
        self._reader.join(5)
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, which leaves its job running."""
        self.killed = True
        self.process.send_signal(number)

    def delete_jobs(self) -> None:
        """Delete all that is left of its jobs."""
        for job in self.jobs():
            words = ("delete", "pytorchjob", job["metadata"]["name"], "--ignore-not-found", "--wait=false")
            kubectl("-n", self.namespace, *words)

    def jobs(self) -> list[dict[str, Any]]:
        """The PyTorchJobs of its run root."""
        return [job for job in objects("pytorchjobs", self.namespace) if self._is_of_root(_master(job))]

    def pods(self) -> list[dict[str, Any]]:
        """The pods of its run root."""
        return [pod for pod in objects("pods", self.namespace) if self._is_of_root(pod["spec"])]

    def running_pods(self) -> list[str]:
        """Names of the pods that are not over."""
        return [p["metadata"]["name"] for p in self.pods() if p["status"]["phase"] not in ("Succeeded", "Failed")]

    def kept(self) -> list[str]:
        """What the run root keeps of its jobs: outcomes, verdicts, logs."""
        store = open_store(self.root)
        return [store.read(found.key).decode(errors="replace") for found in store.listing("jobs/")]

    def step(self, attempt: int = 0) -> int:
        """Optimizer steps done by an attempt, as its pods say."""
        store = open_store(self.root)
        for job in self.jobs():
            key = f"jobs/{job['metadata']['name']}/progress.json"
            if job["metadata"]["labels"]["steerlm.dev/attempt"] == str(attempt) and store.exists(key):
                return int(json.loads(store.read(key))["step"])
        return 0

    def wait_for_step(self, step: int, attempt: int = 0, seconds: float = 180) -> None:
        """Wait until an attempt has done so many steps."""
        until(
            f"step {step}; said so far:\n{self.said}\n", lambda: self._alive() and self.step(attempt) >= step, seconds
        )

    def _is_of_root(self, pod_spec: dict[str, Any]) -> bool:
        return self.root in pod_spec["containers"][0].get("args", [])

    def _alive(self) -> bool:
        assert self.process.poll() is None, f"the launcher has ended:\n{self.said}"
        return True

    def _when(self, pattern: str) -> float | None:
        if found := next((at for at, line in self.lines if re.search(pattern, line)), None):
            return found
        assert self.process.poll() is None or self._reader.is_alive(), f"ended without '{pattern}':\n{self.said}"
        return None

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))


def _master(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    return spec
