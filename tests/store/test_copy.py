"""A copy is the run, a copy over the run repairs it, and neither needs much room on this machine."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from steerlm_core.errors import RunStateError
from steerlm_core.store import open_store, ranges
from steerlm_core.store.contents import read_contents
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal
from tests.runs import loop_at
from tests.toy.runs import Finished, problems


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> RunStore:
    """Two iterations of the toy world, to be changed."""
    return open_store(str(shutil.copytree(finished(2), tmp_path / "run")))


@pytest.mark.long
def test_a_copy_in_a_bucket_is_the_run_and_goes_on(steerlm, run, bucket, tmp_path):
    ended = steerlm("copy", run.root, bucket)
    assert ended.code == 0, ended.err
    there = open_store(bucket)
    assert problems(there) == {}
    assert read_contents(there).documents == read_contents(run).documents
    loop_at(bucket, iterations=3)
    loop_at(run.root, iterations=3)
    for key in ("iterations/002/evaluation/evaluation.json", "iterations/002/commit.json"):
        assert there.read(key) == run.read(key)
    back = str(tmp_path / "back")
    assert steerlm("copy", bucket, back).code == 0
    assert problems(open_store(back)) == {}


def test_a_copy_that_broke_off_is_no_run_and_goes_on(steerlm, run, tmp_path):
    target = open_store(str(tmp_path / "target"))
    assert steerlm("copy", run.root, target.root).code == 0
    target.delete(["run.json", "iterations/000/commit.json"])
    with pytest.raises(RunStateError, match="holds no run"):
        read_contents(target)
    assert steerlm("copy", run.root, target.root).code == 0
    assert problems(target) == {}


def test_neither_a_damaged_run_nor_onto_another_run_is_copied(steerlm, run, tmp_path):
    other = open_store(str(tmp_path / "other"))
    other.put("run.json", seal({"run_id": "other-1"}))
    assert "holds run 'other-1'" in steerlm("copy", run.root, other.root).err
    part = next(iter(read_contents(run).parts()))
    run.put(part.key, b"x" * part.size)
    ended = steerlm("copy", run.root, str(tmp_path / "new"))
    assert ended.code == 2
    assert f"{part.key}: damaged" in ended.err


def test_a_copy_over_the_run_restores_what_is_damaged_and_nothing_else(steerlm, run, tmp_path):
    backup = str(tmp_path / "backup")
    assert steerlm("copy", run.root, backup).code == 0
    contents = read_contents(run)
    damaged = [next(iter(contents.parts())).key, "run.json", "iterations/001/commit.json"]
    before = {found.key: found.modified for found in run.listing()}
    for key in damaged:
        data = bytearray(run.read(key))
        data[len(data) // 2] ^= 1
        run.put(key, bytes(data))
    assert problems(run).keys() >= set(damaged[1:])
    ended = steerlm("copy", backup, run.root)
    assert ended.code == 0, ended.err
    assert problems(run) == {}
    kept = {key for key in contents.documents if key not in damaged}
    kept |= {part.key for part in contents.parts()} - set(damaged)
    assert {found.key: found.modified for found in run.listing() if found.key in kept} == {k: before[k] for k in kept}


def test_a_damaged_run_is_not_restored_from_another_one(steerlm, run, tmp_path):
    other = open_store(str(tmp_path / "other"))
    other.put("run.json", seal({"run_id": "other-1"}))
    mine = read_contents(run).run_id
    run.put("run.json", b"damaged")
    assert f"holds run '{mine}'" in steerlm("copy", other.root, run.root).err
    assert run.read("run.json") == b"damaged"


def test_a_copy_of_a_bucket_has_one_part_at_a_time_on_this_machine(steerlm, run, bucket, tmp_path, monkeypatch):
    assert steerlm("copy", run.root, bucket).code == 0
    scratch, most, upload = tmp_path / "scratch", 0, LocalObjects.upload
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def counts(self: LocalObjects, key: str, path: Path) -> None:
        nonlocal most
        most = max(most, sum(found.is_file() and found.name != ".in-use" for found in scratch.rglob("*")))
        upload(self, key, path)

    monkeypatch.setattr(LocalObjects, "upload", counts)
    assert steerlm("copy", bucket, str(tmp_path / "back")).code == 0
    assert most == 1


def test_a_full_disk_is_named(steerlm, run, bucket, tmp_path, monkeypatch):
    assert steerlm("copy", run.root, bucket).code == 0

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ranges, "_write", full)
    ended = steerlm("verify", bucket)
    assert ended.code == 2
    assert f"{bucket}/prompts/part-00000" in ended.err
    assert "No space left on device" in ended.err
    assert "TMPDIR" in ended.err
