"""How often a training pod opens its run root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from steerlm_core.store import open_store
from tests.toy.runs import Finished

COUNTED = """
import json, sys
from pathlib import Path

from steerlm_core.store.run_store import RunStore

honest, opened = RunStore.__init__, []

def counted(self, objects):
    opened.append(objects.root)
    honest(self, objects)

RunStore.__init__ = counted

from steerlm_core.kube.pod.main import main

code = main(sys.argv[2:], Path(sys.argv[1]) / "message")
(Path(sys.argv[1]) / "opened").write_text(json.dumps(opened))
sys.exit(code)
"""


def test_a_training_pod_opens_the_run_once_and_once_more_for_what_must_not_wait(
    finished: Finished, tmp_path: Path
) -> None:
    """Heartbeats, progress and the outcome go by a store of few attempts: the other's patience is minutes long."""
    root = Path(shutil.copytree(finished(1), tmp_path / "run"))
    shutil.rmtree(root / "iterations/000/model")
    told = [str(tmp_path), "--root", str(root), "--iteration", "0", "--job", "job"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", COUNTED, *told], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads((tmp_path / "opened").read_text()) == [str(root), str(root)]
    store = open_store(str(root))
    assert all(store.exists(f"jobs/job/{name}.json") for name in ("progress", "outcome"))
    assert store.exists("iterations/000/model/manifest.json")
