"""The pods of a training job, as processes that share nothing but a run root in S3."""

from __future__ import annotations

import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from steerlm_core import layout, runtime
from steerlm_core.config import parse_config
from steerlm_core.kube.job.files import End, Outcome
from steerlm_core.store import open_store
from steerlm_core.store.manifest import Manifest
from steerlm_core.training.checkpoints import latest
from tests.distributed.pods import JOB, heartbeat, pods, step
from tests.runs import run_at
from tests.services.processes import free_ports
from tests.waiting import until

STEPS = 960  # a quick machine makes a hundred a second, and is to be disturbed meanwhile
ORPHAN_SECONDS = 4
SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "attributes": [{"name": "verbosity"}, {"name": "mood"}],
    "raters": {"verbosity": "word_count", "mood": "sentiment"},
    "annotated": {"attribute_texts": 32, "bootstrap_texts": 16},
    "attribute_fit": {"epochs": 1},
    "bootstrap_fit": {"epochs": 1},
    "prompts": {"train": 8, "held_out": 4, "prompts_per_part": 4},
    "generate": {"candidates": 3, "max_new_tokens": 12, "truncated": "keep"},
    "train": {"epochs": STEPS // 2, "batch_groups": 4, "learning_rate": 1e-5, "engine": "deepspeed", "processes": 2},
    "runtime": {"threads": 1},
}
CHECKPOINTS = ["--how", '{"checkpoint_seconds": 0.5}']


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a disk whose first iteration is ready to train."""
    from steerlm_core.training.base_model import BaseConfig, base_model

    prior = base_model(1, config=BaseConfig(hidden=32, layers=1, heads=2, intermediate=64, stories=320,
                                            validation_stories=8))  # fmt: skip
    root = str(tmp_path_factory.mktemp("runs") / "weighed")
    run = run_at(root, parse_config({**SETTINGS, "models": {"prior": str(prior)}}, "tiny"))
    runtime.prepare(run)
    for name in ("generate", "label", "score_prior", "weigh"):
        runtime.run_step(run, name, 0)
    return Path(root)


@pytest.fixture(scope="module")
def trained(weighed: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The model that torchrun makes of it with two processes of this machine."""
    root = tmp_path_factory.mktemp("runs") / "torchrun"
    shutil.copytree(weighed, root)
    runtime.run_step(run_at(root), "train", 0)
    return model(str(root))


@pytest.fixture
def root(weighed: Path, bucket: str) -> str:
    """The same run in a bucket."""
    store = open_store(bucket)
    for path in weighed.rglob("*"):
        key = path.relative_to(weighed).as_posix()
        if path.is_file() and key.partition("/")[0] in ("run.json", "models", "iterations", "prompts"):
            store.upload(key, path)
    return bucket


def model(root: str) -> Manifest:
    key = "iterations/000/model/manifest.json"
    return Manifest.model_validate(open_store(root).document(key))


def told(root: str, node: int = 0) -> Outcome | None:
    key = layout.job_outcome(JOB, node)
    found = open_store(root).read_versioned(key)
    return Outcome.from_bytes(found[0], key) if found else None


def checkpoint_step(root: str, manifest: Manifest) -> int:
    """The step of the checkpoint that a next attempt finds, verified byte by byte."""
    with open_store(root).work_folder("iterations/000/train") as folder:
        found = latest(folder / "checkpoints", manifest.input_digest)
    assert found is not None
    return int(found.state["step"])


def test_two_nodes_make_the_bytes_that_torchrun_makes_with_two_processes(root, trained, tmp_path):
    with pods(tmp_path / "first", root) as both, heartbeat(root):
        ends = [pod.end() for pod in both]
    assert [code for code, _ in ends] == [0, 0], both[0].log.read_text()[-3000:]
    assert [message["class"] for _, message in ends] == ["done", "done"]
    found = model(root)
    assert (found.parts, found.metrics) == (trained.parts, trained.metrics)
    assert step(root) == STEPS
    outcome = told(root)
    assert outcome is not None
    assert (outcome.end, outcome.rank) == (End.DONE, 0)
    assert told(root, 1) is None
    open_store(root).put(layout.job_outcome(JOB, 1), b"of an earlier job of this name")
    with pods(tmp_path / "again", root) as both:
        assert [pod.end()[0] for pod in both] == [0, 0]
    assert told(root, 1) is None
    assert step(root) == 0
    assert "the model is there already" in both[0].log.read_text()


def test_a_job_that_nobody_watches_ends_itself_with_a_checkpoint_and_the_next_goes_on_to_the_same_bytes(
    root, trained, tmp_path
):
    started = time.monotonic()
    with pods(tmp_path / "first", root, "--orphan-after", str(ORPHAN_SECONDS), *CHECKPOINTS) as both:
        with heartbeat(root):
            until("a step", lambda: step(root) >= 1, 90)
            until("that time", lambda: time.monotonic() - started > 1.5 * ORPHAN_SECONDS, 90)
            assert [pod.process.poll() for pod in both] == [None, None], "ended though it was watched"
        ends = [pod.end() for pod in both]
    assert [message["class"] for _, message in ends] == ["orphaned", "orphaned"]
    assert [code for code, _ in ends] == [143, 143]
    assert f"no launcher has watched this job for {ORPHAN_SECONDS} s" in ends[0][1]["message"]
    assert told(root).end is End.ORPHANED
    reached = checkpoint_step(root, trained)
    assert 1 <= reached < STEPS
    with pods(tmp_path / "second", root) as both, heartbeat(root):
        assert [pod.end()[0] for pod in both] == [0, 0]
    assert "continuing from" in both[0].log.read_text()
    assert model(root).parts == trained.parts


def test_sigterm_leaves_a_checkpoint(root, trained, tmp_path):
    with pods(tmp_path / "pods", root) as both, heartbeat(root):
        until("a step", lambda: step(root) >= 1, 90)
        for pod in both:
            pod.process.send_signal(signal.SIGTERM)
        ends = [pod.end(30) for pod in both]
    assert [message["class"] for _, message in ends] == ["stopped", "stopped"]
    assert told(root).end is End.STOPPED
    assert checkpoint_step(root, trained) >= 1


def test_a_killed_rank_is_worth_another_attempt(root, tmp_path):
    with pods(tmp_path / "pods", root) as both, heartbeat(root):
        until("a step", lambda: step(root) >= 1, 90)
        both[1].ranks()[0].kill()
        ends = [pod.end() for pod in both]
    assert [(code, message["class"]) for code, message in ends] == [(1, "retryable")] * 2
    assert "continues from the last checkpoint" in ends[0][1]["message"]
    assert told(root).end is told(root, 1).end is End.RETRYABLE


def test_a_worker_whose_master_is_gone_ends_and_says_so(root, tmp_path):
    with pods(tmp_path / "pods", root) as (master, worker), heartbeat(root):
        until("a step", lambda: step(root) >= 1, 90)
        for process in [*master.ranks(), psutil.Process(master.process.pid)]:
            process.kill()
        code, message = worker.end(60)
    assert (code, message["class"]) == (1, "retryable")
    assert told(root) is None


def test_a_damaged_input_is_named_and_nothing_is_trained(root, tmp_path):
    store = open_store(root)
    groups = Manifest.model_validate(store.document("iterations/000/groups/manifest.json"))
    key = groups.of_split("train")[0].key
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    with pods(tmp_path / "pods", root, nodes=1) as (pod,):
        code, message = pod.end()
    assert (code, message["class"]) == (2, "user_error")
    assert key in message["message"]
    assert "damaged" in message["message"]
    assert told(root).message == message["message"]


def test_one_node_with_one_process_trains_by_itself_and_its_metrics_say_how_far_it_is(weighed, tmp_path, monkeypatch):
    root = tmp_path / "run"
    shutil.copytree(weighed, root)
    (port,) = free_ports("127.0.0.1", 1)
    monkeypatch.setenv("STEERLM_METRICS_PORT", str(port))
    with pods(tmp_path / "pods", str(root), "--how", '{"engine": "single"}', nodes=1) as (pod,):
        scraped = until("a sample", lambda: _scraped(port, "steerlm_stage_progress_ratio{"), 90)
        code, message = pod.end()
    assert re.search(r'steerlm_stage_running{run="tiny-\w+",stage="train"} 1.0\n', scraped)
    assert 'steerlm_stage_last_progress_timestamp_seconds{run="tiny-' in scraped
    assert (code, message["class"]) == (0, "done")
    assert "torch.distributed.run" not in pod.log.read_text()
    assert model(str(root)).metrics["steps"] == STEPS


def _scraped(port: int, wanted: str) -> str:
    """What a pod says on its port, once it says what is wanted."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
    except URLError:
        return ""
    return text if wanted in text else ""


def test_a_store_that_is_gone_for_good_and_one_that_refuses(root, tmp_path, monkeypatch):
    with pods(tmp_path / "refused", root.replace("s3://test", "s3://nobody"), nodes=1) as (pod,):
        code, message = pod.end()
    assert (code, message["class"]) == (2, "user_error"), message
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pods(tmp_path / "gone", root, nodes=1, patience=3) as (pod,):
        code, message = pod.end()
    assert (code, message["class"]) == (1, "store_unreachable")
    assert "trying again" in pod.log.read_text()


def test_sigterm_before_training_ends_at_once(root, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pods(tmp_path / "pods", root, nodes=1) as (pod,):
        until("a second try", lambda: "trying again" in pod.log.read_text(), 90)
        pod.process.send_signal(signal.SIGTERM)
        code, message = pod.end(20)
    assert (code, message["class"]) == (143, "stopped")
