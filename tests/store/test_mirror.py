"""Checkpoints in the run root: the newest comes back, and nobody who wakes up late takes it away."""

from __future__ import annotations

from pathlib import Path

import pytest

import steerlm_core.store.mirror as mirror
from steerlm_core.errors import LeaseLostError
from steerlm_core.store import open_store


@pytest.fixture(autouse=True)
def _uploads_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only on exit, so that a test says when."""
    monkeypatch.setattr(mirror, "_LOOK_SECONDS", 600.0)


def _checkpoint(folder: Path, step: int, text: str = "weights") -> None:
    place = folder / f"checkpoints/step-{step:08d}"
    place.mkdir(parents=True)
    (place / "state.json").write_text(str(step))
    (place / "tensors.safetensors").write_text(text)


def _mirror(root: str, step: int, text: str = "weights") -> None:
    """Be a runner that makes one checkpoint."""
    with open_store(root).work_folder("train") as folder:
        _checkpoint(folder, step, text)


def _found(root: str) -> dict[str, tuple[str, str]]:
    """What a next runner finds, by the checkpoint's name."""
    with open_store(root).work_folder("train") as folder:
        return {
            path.name: ((path / "state.json").read_text(), (path / "tensors.safetensors").read_text())
            for path in (folder / "checkpoints").glob("step-*")
        }


def _files(root: str) -> int:
    return len(list(open_store(root).listing("train/checkpoints/step-")))


def test_a_checkpoint_comes_back_where_the_process_died(bucket):
    with open_store(bucket).work_folder("train") as folder:
        _checkpoint(folder, 1)
        _checkpoint(folder, 2)
    assert _found(bucket) == {"step-00000002": ("2", "weights")}


def test_a_newer_checkpoint_takes_the_place_of_the_one_before(bucket):
    _mirror(bucket, 1)
    _mirror(bucket, 2)
    assert _found(bucket) == {"step-00000002": ("2", "weights")}
    assert _files(bucket) == 2


def test_a_checkpoint_that_lacks_a_file_is_left_alone_until_the_next_one_stands(bucket, caplog):
    _mirror(bucket, 2)
    store = open_store(bucket)
    (lost,) = (found.key for found in store.listing("train") if found.key.endswith("tensors.safetensors"))
    store.delete([lost])
    with store.work_folder("train") as folder:
        assert not list((folder / "checkpoints").glob("step-*"))
        _checkpoint(folder, 1)
    assert "starts from the beginning" in caplog.text
    assert _found(bucket) == {"step-00000001": ("1", "weights")}
    assert _files(bucket) == 2


@pytest.mark.parametrize("step", [400, 120])
def test_a_runner_that_stalled_before_its_upload_takes_nothing_back(bucket, step):
    with open_store(bucket).work_folder("train") as late:
        _checkpoint(late, 120, "late")
        _mirror(bucket, step, "in time")
    assert _found(bucket) == {f"step-{step:08d}": (str(step), "in time")}
    assert _files(bucket) == 2


@pytest.mark.parametrize("step", [400, 120])
def test_a_runner_that_stalled_within_its_upload_takes_nothing_back(bucket, monkeypatch, step):
    stalled, others = open_store(bucket), [step]
    upload = stalled.upload

    def stalls(key: str, path: Path) -> None:
        upload(key, path)
        if others:
            _mirror(bucket, others.pop(), "in time")

    monkeypatch.setattr(stalled, "upload", stalls)
    with stalled.work_folder("train") as late:
        _checkpoint(late, 120, "late")
    assert _found(bucket) == {f"step-{step:08d}": (str(step), "in time")}
    assert _files(bucket) == 2


def test_a_runner_that_has_lost_its_lease_uploads_nothing(bucket):
    def finds_out() -> None:
        with open_store(bucket).work_folder("train") as late:
            _checkpoint(late, 120)
            raise LeaseLostError("another has it")

    with pytest.raises(LeaseLostError):
        finds_out()
    assert not list(open_store(bucket).listing())
