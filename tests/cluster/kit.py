"""The cluster of `../shared/cluster`, and the few words that tests say to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
KIT = ROOT.parent / "shared" / "cluster" / "cluster"
HOME = Path(os.environ.get("CLUSTER_HOME", "/var/tmp/steerlm-cluster"))
KUBECONFIG = HOME / "kubeconfig"
GATEWAY = "10.88.0.1"  # where pods reach this machine
NODES = 2
IMAGE = os.environ.get("STEERLM_TEST_IMAGE", "localhost/steerlm:test")  # another tag where checkouts share a cluster
ARCHIVE = ROOT / "build" / "image" / "steerlm.tar"


def kit(*words: str) -> str:
    """Run a command of the kit; returns what it prints."""
    done = subprocess.run([str(KIT), *words], capture_output=True, text=True)
    assert done.returncode == 0, f"cluster {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def kubectl(*words: str, manifest: object = None) -> str:
    """Run kubectl as administrator; returns what it prints. A manifest goes to its standard input."""
    command = [str(HOME / "bin/kubectl"), "--kubeconfig", str(KUBECONFIG), *words]
    text = None if manifest is None else json.dumps(manifest)
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def objects(kind: str, namespace: str, *words: str) -> list[dict[str, Any]]:
    """Return the objects of a kind in a namespace."""
    return list(json.loads(kubectl("-n", namespace, "get", kind, "-o", "json", *words))["items"])


@contextmanager
def running_cluster() -> Iterator[None]:
    """Start the cluster, and stop it at the end; one that runs already is used, and left running."""
    if _runs():
        yield
        return
    kit("up", "--nodes", str(NODES))
    try:
        yield
    finally:
        kit("down")


def load_image() -> None:
    """Bring the image under test to every node that does not have it.

    It is what `make image` built; where STEERLM_STAND_IN is set, a quick stand-in of this project's own environment.
    """
    if os.environ.get("STEERLM_STAND_IN"):
        return _load_stand_in()
    assert ARCHIVE.exists(), f"{ARCHIVE} is missing: `make image` builds it, STEERLM_STAND_IN=1 does without"
    built, loaded = ARCHIVE.with_suffix(".id").read_text(), HOME / "node-1" / f"{IMAGE.replace('/', '_')}.id"
    if not loaded.exists() or loaded.read_text() != built:
        kit("load", str(ARCHIVE))
        loaded.write_text(built)


def _load_stand_in() -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = Path(sys.prefix) / "lib" / version / "site-packages"
    place = f"/usr/local/lib/{version}/dist-packages/steerlm_core"
    added = {"steerlm_core": place, "components": f"{place}/kubeflow/components"}  # as in a wheel
    folders = [word for name, where in added.items() for word in ("--add", f"{ROOT / name}:{where}")]
    kit("python", IMAGE, "--site-packages", str(packages), *folders)
    (HOME / "node-1" / f"{IMAGE.replace('/', '_')}.id").unlink(missing_ok=True)


def _runs() -> bool:
    try:
        nodes = json.loads(kubectl("get", "nodes", "-o", "json", "--request-timeout=5s"))["items"]
    except (AssertionError, OSError):
        return False
    ready = [c for node in nodes for c in node["status"]["conditions"] if (c["type"], c["status"]) == ("Ready", "True")]
    return len(ready) == NODES
