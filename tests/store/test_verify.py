"""verify: every damage is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from steerlm_core.cli import app
from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.store import open_store
from steerlm_core.store.contents import read_contents
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal, unseal
from tests.runs import loop_at
from tests.toy.runs import Finished, problems


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> RunStore:
    """Three iterations of the toy world, to be changed."""
    return open_store(str(shutil.copytree(finished(3), tmp_path / "run")))


def _steerlm(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, list(arguments))
    if isinstance(ended.exception, SteerLMError):
        return 2, str(ended.exception)
    return ended.exit_code, ended.output


def test_a_sound_run_is_sound(run):
    assert problems(run) == {}
    code, said = _steerlm("verify", run.root)
    assert code == 0
    assert "all as they were written" in said


def test_a_flipped_byte_in_any_object_is_found(run):
    """One byte of every object that the run consists of, documents and parts alike."""
    contents = read_contents(run)
    keys = [*contents.documents, *(part.key for part in contents.parts())]
    assert len(keys) > 80
    for place, key in enumerate(keys):
        whole = run.read(key)
        damaged = bytearray(whole)
        damaged[place * 7919 % len(whole)] ^= 1 << place % 8
        run.put(key, bytes(damaged))
        found = read_contents(run).problems if key in contents.documents else problems(run)
        assert key in found, key
        run.put(key, whole)
    assert problems(run) == {}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("run.json", "run.json: damaged"),
        ("iterations/001/commit.json", "001/commit.json: damaged"),
        ("iterations/000/model/manifest.json", "000/model/manifest.json: damaged"),
        ("iterations/002/evaluation/manifest.json", "002/evaluation/manifest.json: damaged"),
    ],
)
def test_a_damaged_document_stops_the_run_before_its_use(run, key, said):
    data = bytearray(run.read(key))
    data[len(data) // 2] ^= 1
    run.put(key, bytes(data))
    run.delete(["decision.json", "iterations/002/commit.json"])
    with pytest.raises(SteerLMError, match=said):
        loop_at(run.root, iterations=3)


def test_a_commit_that_names_another_model_is_found(run):
    key = "iterations/001/commit.json"
    run.put(key, seal({**unseal(run.read(key), key), "model": "0" * 64}))
    assert problems(run) == {
        "iterations/001/model/manifest.json": "is not the output that the iteration's commit names"
    }
    code, said = _steerlm("verify", run.root)
    assert code == 1
    assert "1 of the objects" in said


def test_a_manifest_of_another_run_is_refused(run):
    key = "iterations/001/labels/manifest.json"
    run.put(key, seal({**unseal(run.read(key), key), "run_id": "another-1234"}))
    assert "belongs to run 'another-1234'" in problems(run)[key]
    run.delete(["iterations/001/groups/manifest.json"])
    with pytest.raises(RunStateError, match=r"labels/manifest\.json: belongs to run 'another-1234'"):
        loop_at(run.root, iterations=3)
