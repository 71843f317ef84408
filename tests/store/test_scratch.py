"""Scratch folders: gone with their process, however it ends, and never with another's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from steerlm_core.store.scratch import Scratch

HOLDS = "from steerlm_core.store.scratch import Scratch\ns = Scratch()\nprint(s.path, flush=True)\ninput()"


def test_the_scratch_of_a_killed_process_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    theirs = Path(process.stdout.readline().strip())
    first = Scratch()
    assert theirs.is_dir()  # it is in use
    process.send_signal(signal.SIGKILL)
    process.wait()
    second = Scratch()
    assert not theirs.exists()
    assert first.path.is_dir()
    gone = second.path
    del second
    assert not gone.exists()
