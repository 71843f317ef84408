"""A port-forward through the kubeconfig, by kubectl as a child that does not outlive us."""

from __future__ import annotations

import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from steerlm_core.errors import KubeflowError
from steerlm_core.processes import end_with_parent

_READY = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_SECONDS = 30.0


@contextmanager
def forwarded(namespace: str, target: str, port: int) -> Iterator[int]:
    """Forward a free port of this machine to a service while the block runs; gives the port.

    Raises:
        KubeflowError: There is no kubectl, or it cannot forward; with its own words.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise KubeflowError("no host: give --host or KFP_ENDPOINT, or install kubectl for a port-forward to Kubeflow.")
    command = [kubectl, "port-forward", "--address=127.0.0.1", f"--namespace={namespace}", target, f":{port}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent
    )
    try:
        yield _port(process, f"kubectl port-forward -n {namespace} {target}")
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[str], what: str) -> int:
    """Wait until it forwards; its output is read to the end, so that it never blocks on a full pipe."""
    assert process.stdout is not None
    assert process.stderr is not None
    ports: queue.Queue[int | None] = queue.Queue()
    errors: list[str] = []
    readers = [
        threading.Thread(target=_read_ports, args=(process.stdout, ports), daemon=True),
        threading.Thread(target=_read_lines, args=(process.stderr, errors), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        port = ports.get(timeout=_SECONDS)
    except queue.Empty:
        raise KubeflowError(f"{what}: not ready after {_SECONDS:.0f} s; give --host or KFP_ENDPOINT.") from None
    if port is None:
        readers[1].join(5)
        said = " ".join(errors[-1:]) or "it ended without a word"
        raise KubeflowError(f"no host is given, and {what} failed: {said}; give --host or KFP_ENDPOINT.")
    return port


def _read_ports(stream: IO[str], ports: queue.Queue[int | None]) -> None:
    for line in stream:
        if found := _READY.match(line):
            ports.put(int(found[1]))
    ports.put(None)


def _read_lines(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.strip())
        del lines[:-20]
