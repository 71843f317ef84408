"""Checkpoints: what is loaded, what never is, and that a run that was cut off ends as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from steerlm_core.errors import ForeignOutputError
from steerlm_core.training import checkpoints
from steerlm_core.training.checkpoints import Writer, latest
from steerlm_core.training.job import TrainingStoppedError, TrainJob, TrainResult
from steerlm_core.training.run import train
from tests.distributed.world import make_job, make_policy, token_groups, write_groups

JOB = "d" * 64
ALWAYS = 1e-6  # seconds between checkpoints


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("world")
    policy = make_policy(root / "policy")
    return policy, write_groups(root / "part-0.parquet", policy, token_groups(14))


def _write(folder: Path, step: int, keep: int = 3) -> Path:
    writer = Writer(folder, JOB, step, keep)
    writer.add("weight/a", torch.full((4, 3), float(step)))
    writer.add("exp_avg/a", torch.arange(12.0).reshape(3, 4).T)
    return writer.commit({"step": step, "sums": {"loss": 0.1 + step}})


def test_what_is_written_comes_back_and_the_newest_are_kept(tmp_path: Path) -> None:
    assert latest(tmp_path / "none", JOB) is None
    for step in (5, 9, 10, 11):
        _write(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]
    found = latest(tmp_path, JOB)
    assert found is not None
    assert found.state == {"step": 11, "sums": {"loss": 11.1}}
    assert torch.equal(found.tensor("weight/a"), torch.full((4, 3), 11.0))
    assert torch.equal(found.tensor("exp_avg/a"), torch.arange(12.0).reshape(3, 4).T)
    assert {path.suffix for path in found.folder.iterdir()} == {".json", ".safetensors"}, "nothing to unpickle"


def test_large_state_is_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_SHARD_BYTES", 40)
    folder = _write(tmp_path, 1)
    assert len(list(folder.glob("*.safetensors"))) == 2
    found = latest(tmp_path, JOB)
    assert found is not None
    assert torch.equal(found.tensor("weight/a"), torch.ones(4, 3))


def _flip(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) * 2 // 3] ^= 1
        (folder / name).write_bytes(content)

    return spoil


def _cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 1)


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize("spoil", [_flip, _cut, _remove])
@pytest.mark.parametrize("name", ["tensors-00000.safetensors", "state.json", "manifest.json"])
def test_spoilt_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, spoil: Callable[[str], Callable[[Path], None]], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    _write(tmp_path, 1)
    spoil(name)(_write(tmp_path, 2))
    found = latest(tmp_path, JOB)
    assert found is not None
    assert found.state["step"] == 1
    assert "step-00000002 is not whole" in caplog.text
    spoil(name)(found.folder)
    assert latest(tmp_path, JOB) is None


def test_flipped_byte_of_a_manifest_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    folder = _write(tmp_path, 1)
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(0, len(whole), 7):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert latest(tmp_path, JOB) is None or json.loads(manifest.read_text()) == json.loads(whole), place


@pytest.mark.parametrize("breaks", ["save_file", "_fingerprint", "_sync", "rename"])
def test_half_written_checkpoint_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str) -> None:
    _write(tmp_path, 1)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path if breaks == "rename" else checkpoints, breaks, fail)
    with pytest.raises(OSError, match="disk full"):
        _write(tmp_path, 2)
    monkeypatch.undo()
    found = latest(tmp_path, JOB)
    assert found is not None
    assert found.state["step"] == 1
    _write(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"], (
        "leftovers are cleared"
    )


def test_checkpoint_of_another_job_is_refused(world: tuple[Path, Path], tmp_path: Path) -> None:
    train(make_job(tmp_path, *world, checkpoint_seconds=ALWAYS))
    with pytest.raises(ForeignOutputError, match=r"step-00000004: this checkpoint is of another .* now eeeeeeee"):
        train(make_job(tmp_path, *world, digest="e" * 64))


def _stopped_at(job: TrainJob, wanted: int) -> None:
    """Train, and send SIGTERM to ourselves when step `wanted` is done."""

    def report(step: int, steps: int, numbers: Mapping[str, float]) -> None:
        if step == wanted:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStoppedError, match=f"after step {wanted + 1} of "):
        train(job, report=report)


def _assert_same(job: TrainJob, result: TrainResult, undisturbed: TrainJob, expected: TrainResult) -> None:
    assert result == expected
    for path in undisturbed.output.rglob("*.safetensors"):
        assert (job.output / path.relative_to(undisturbed.output)).read_bytes() == path.read_bytes(), path.name
    numbers = [
        [{key: line[key] for key in ("step", "loss", "distance", "grad_norm", "learning_rate")} for line in lines]
        for lines in (_lines(job), _lines(undisturbed))
    ]
    assert numbers[0] == numbers[1]


def _lines(job: TrainJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.output.parent / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine", "warmup_steps": 2},
        {"optimizer": "sgd"},
        {"lora": {"rank": 2}},
        {"dtype": "bfloat16", "layout": "padded"},
        {"token_budget": 64, "weight_decay": 0.1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_run_stopped_by_sigterm_ends_as_if_it_had_not_been(
    world: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    undisturbed, job = (make_job(tmp_path / name, *world, epochs=3, **settings) for name in ("undisturbed", "stopped"))
    expected = train(undisturbed)
    before = signal.getsignal(signal.SIGTERM)
    _stopped_at(job, 9)  # in the middle of the last epoch, whose numbers are reported
    assert signal.getsignal(signal.SIGTERM) is before
    assert not job.output.exists()
    assert latest(job.checkpoints, job.digest) is not None
    torch.manual_seed(time.time_ns())
    _assert_same(job, train(job), undisturbed, expected)


@pytest.mark.long
def test_run_killed_at_a_random_step_ends_bitwise_the_same(world: tuple[Path, Path], tmp_path: Path) -> None:
    undisturbed, job = (
        make_job(tmp_path / name, *world, epochs=15, checkpoint_seconds=ALWAYS) for name in ("undisturbed", "killed")
    )
    expected = train(undisturbed)
    (tmp_path / "job.json").write_text(job.to_json())
    command = [sys.executable, "-m", "steerlm_core.training.launch", str(tmp_path / "job.json")]
    step = random.Random(time.time_ns()).randrange(1, 40)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < step:
        assert child.poll() is None, "the child must live until it is killed"
        time.sleep(0.003)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    found = latest(job.checkpoints, job.digest)
    assert found is not None
    assert step - 1 <= found.state["step"] < 60, f"killed after step {step}"
    _assert_same(job, train(job), undisturbed, expected)
