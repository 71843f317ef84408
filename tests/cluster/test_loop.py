"""The demo with every training step as a PyTorchJob finds and decides what it does on one machine."""

from __future__ import annotations

import os
import subprocess
import uuid
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import yaml

from steerlm_core.store import open_store
from steerlm_core.store.sealed import unseal
from tests.cluster.kit import ROOT, objects
from tests.cluster.place import Place
from tests.in_process import STEERLM
from tests.services.s3 import BUCKET
from tests.toy.runs import results
from tests.waiting import until


def run(config: Path, root: str, *words: str, **environment: str) -> str:
    command = [*STEERLM, "run", str(config), "--root", root, "--display", "plain", *words]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


_RUN, _JOB = "steerlm.dev/run", "training.kubeflow.org/job-name"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The demo, trained by two processes."""
    settings = yaml.safe_load((ROOT / "examples/demo.yaml").read_text())
    settings["train"]["processes"] = 2
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.timeout(1500)
def test_the_demo_on_the_cluster_is_bitwise_that_of_two_processes_here(
    demo: Path, place: Place, tmp_path: Path
) -> None:
    there, here, alone = f"s3://{BUCKET}/loop-{uuid.uuid4().hex[:6]}", str(tmp_path / "here"), str(tmp_path / "alone")
    on_cluster = ("--backend", "pytorchjob", "--platform", str(place.platform("loop", spread="require")))
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run, demo, there, *on_cluster, KUBECONFIG=str(place.kubeconfig())),
            pool.submit(run, demo, here, "--backend", "torchrun"),
            pool.submit(run, demo, alone, "--backend", "local", "--max-iterations", "1"),
        ]
        nodes = _nodes_of_jobs(place, runs)
    for each in runs:
        each.result()
    run_id = open_store(there).document("run.json")["run_id"]
    trained = [commit for commit in results(there) if commit.endswith("/commit.json")]
    assert [len(found) for (run, _), found in nodes.items() if run == run_id] == [2] * len(trained), nodes
    until("no pod runs", lambda: not _running(place, run_id), 30)
    assert {"iterations/000/commit.json", "iterations/001/commit.json"} <= results(here).keys()
    assert results(there) == results(here)
    one, two = (results(root)["iterations/000/evaluation/evaluation.json"] for root in (alone, here))
    _within(unseal(one, "one"), unseal(two, "two"), 1e-4)


def _nodes_of_jobs(place: Place, runs: list[Future[str]]) -> dict[tuple[str, str], set[str]]:
    """Watch until the runs have ended; return the nodes of each job's pods, by run and job.

    Afterwards is too late: a worker that still runs when the master has succeeded is deleted.
    """
    nodes: dict[tuple[str, str], set[str]] = {}
    while wait(runs, 1.0).not_done:
        for pod in objects("pods", place.name, "-l", _RUN):
            labels, node = pod["metadata"]["labels"], pod["spec"].get("nodeName")
            if node:
                nodes.setdefault((labels[_RUN], labels[_JOB]), set()).add(node)
    return nodes


def _running(place: Place, run_id: str) -> list[str]:
    pods = objects("pods", place.name, "-l", f"{_RUN}={run_id}")
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]


def _within(one: object, other: object, limit: float) -> None:
    """Compare every number of two documents of the same form; hashes differ, as weights do in the last bits."""
    assert type(one) is type(other)
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in one:
            _within(one[key], other[key], limit)
    elif isinstance(one, list) and isinstance(other, list):
        for each, its_pair in zip(one, other, strict=True):
            _within(each, its_pair, limit)
    elif isinstance(one, float) and isinstance(other, float):
        assert abs(one - other) <= limit
    elif not isinstance(one, str):
        assert one == other
