"""What a user keeps in a bucket: prompts and models reach the run as those on a disk do."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core.config import parse_config
from steerlm_core.errors import DataError, ModelError
from steerlm_core.store import open_store
from steerlm_core.store.inputs import Inputs
from tests.runs import loop_at


@pytest.mark.long
def test_a_run_on_inputs_in_a_bucket_is_the_run_on_those_on_disk(toy, bucket, tmp_path):
    store, world = open_store(f"{bucket}/inputs"), Path(toy.prompts.source).parent
    for path in world.rglob("*"):
        if path.is_file():
            store.upload(path.relative_to(world).as_posix(), path)
    raw = toy.model_dump(mode="json")
    raw["prompts"]["source"] = f"{bucket}/inputs/prompts.jsonl"
    raw["models"] |= {
        name: f"{bucket}/inputs/{Path(raw['models'][name]).name}" for name in ("prior", "policy", "attribute")
    }
    roots = {"disk": (str(tmp_path / "run"), toy), "bucket": (f"{bucket}/run", parse_config(raw, "test"))}
    for root, given in roots.values():
        loop_at(root, given, 1)
    one, other = (open_store(root) for root, _ in roots.values())
    for key in ("iterations/000/evaluation/evaluation.json", "iterations/000/commit.json"):
        assert one.read(key) == other.read(key)


def test_the_empty_objects_that_a_console_makes_of_folders_are_no_files(bucket, tmp_path):
    store = open_store(bucket)
    for key in ("prior/", "prior/inner/"):
        store.put(key, b"")
    store.put("prior/config.json", b"{}")
    assert {found.key for found in open_store(f"{bucket}/prior").listing()} >= {"config.json", "inner/"}
    folder = Inputs(tmp_path).fetch(f"{bucket}/prior")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_how_far_a_large_model_is_fetched_is_told(bucket, tmp_path):
    store = open_store(f"{bucket}/prior")
    store.put("config.json", b"{}")
    store.put("model.safetensors", b"x" * (40 << 20))
    told: list[tuple[int, int, str]] = []
    Inputs(tmp_path / "light", weights=False, progress=lambda *words: told.append(words)).fetch(f"{bucket}/prior")
    assert not told
    Inputs(tmp_path / "whole", progress=lambda *words: told.append(words)).fetch(f"{bucket}/prior")
    assert {words[1:] for words in told} == {(40, "MB fetched")}
    assert told == sorted(told)
    assert told[0][0] < 40 == told[-1][0]


def test_what_is_not_there_is_named(bucket, tmp_path):
    inputs = Inputs(tmp_path)
    with pytest.raises(DataError, match=rf"{bucket}/nothing: there is no such file or folder"):
        inputs.fetch(f"{bucket}/nothing")
    assert inputs.fetch(f"file://{tmp_path}") == tmp_path
    assert inputs.fetch("some/path") == Path("some/path")


def test_a_folder_in_a_bucket_that_is_no_model_is_refused(toy, bucket, tmp_path):
    open_store(bucket).put("stuff/readme.txt", b"x")
    raw = toy.model_dump(mode="json")
    raw["models"]["policy"] = f"{bucket}/stuff"
    with pytest.raises(ModelError, match=rf"models\.policy: '{bucket}/stuff' is no model folder"):
        loop_at(tmp_path / "run", parse_config(raw, "test"), 1)
