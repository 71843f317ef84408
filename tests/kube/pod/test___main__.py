"""A pod that is stopped while it is still importing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

# Stands for the seconds that torch takes: says that the import of `main` has begun, and never ends it.
SLOW_IMPORT = """
import signal, sys

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "steerlm_core.kube.pod.main":
            print("importing", flush=True)
            while True:
                signal.pause()

sys.meta_path.insert(0, Slow())
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child"]  # there the pod is process 1, as in its container


def test_sigterm_during_the_imports_ends_the_pod(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    own = NAMESPACE if os.geteuid() == 0 else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [*own, sys.executable, "-m", "steerlm_core.kube.pod"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"importing\n"
            os.kill(_child(process.pid) if own else process.pid, signal.SIGTERM)
            assert process.wait(10) == 143
        finally:
            process.kill()


def _child(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text())
