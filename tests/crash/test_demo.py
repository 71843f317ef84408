"""The demo's whole run, twice: in a bucket it decides as on a disk, for the same reason, from the same numbers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.in_process import STEERLM
from tests.toy.runs import results

DEMO = Path(__file__).resolve().parents[2] / "examples/demo.yaml"


def _run(root: str) -> None:
    done = subprocess.run([*STEERLM, "run", str(DEMO), "--root", root], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_demo_finds_in_a_bucket_what_it_finds_on_a_disk(tmp_path: Path, bucket: str) -> None:
    on_disk = str(tmp_path / "demo")
    _run(on_disk)
    _run(bucket)
    assert results(bucket) == results(on_disk)
    assert "decision.json" in results(bucket)
