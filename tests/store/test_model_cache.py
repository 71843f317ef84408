"""Copies of models on this machine: whole or made anew, and never the bucket's fault."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from steerlm_core.errors import RunStateError, ScratchError
from steerlm_core.store import open_store
from steerlm_core.store.manifest import Manifest
from steerlm_core.store.run_store import RunStore

FILES = {"config.json": "{}", "model.safetensors": "weights", "inner/tokenizer.json": "t"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that processes share."""
    monkeypatch.setenv("STEERLM_MODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(bucket: str) -> RunStore:
    return open_store(bucket)


def _model(store: RunStore, folder: Path, files: dict[str, str]) -> Manifest:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Manifest(step="train", run_id="run", input_digest="d", parts=store.write_folder("model", folder))


def _read(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", [lambda file: file.write_text("WEIGHTS"), lambda file: file.unlink()])
def test_a_damaged_copy_is_made_anew(store, cache, tmp_path, damage, caplog):
    model = _model(store, tmp_path / "model", FILES)
    damage(store.local_folder(model) / "model.safetensors")
    for _ in range(2):
        assert _read(open_store(store.root).local_folder(model)) == FILES
    assert caplog.text.count("this copy of a model is damaged") == 1
    assert len(list(cache.iterdir())) == 1


def test_a_damaged_model_in_the_bucket_is_named_until_it_is_restored(store, cache, tmp_path):
    model = _model(store, tmp_path / "model", FILES)
    (part,) = (part for part in model.parts if part.key.endswith("config.json"))
    store.put(part.key, b"[]")
    for _ in range(2):
        with pytest.raises(RunStateError, match=rf"{part.key}: damaged .* `steerlm copy"):
            store.local_folder(model)
    assert not list(cache.iterdir())
    store.put(part.key, b"{}")
    assert _read(store.local_folder(model)) == FILES


def test_a_damaged_copy_of_a_file_is_made_anew(store, tmp_path):
    part = _model(store, tmp_path / "model", FILES).parts[0]
    store.local_file(part).write_text("damaged")
    assert store.local_file(part).read_text() == FILES["config.json"]


def test_what_killed_processes_have_left_in_a_shared_cache_goes_after_a_day(store, cache, tmp_path):
    for name, age in ((".unfinished-old", 2 * 86_400), (".unfinished-new", 60)):
        (cache / name / "model").mkdir(parents=True)
        (cache / name / "model" / "weights").write_text("half")
        for path in (cache / name / "model/weights", cache / name / "model", cache / name):
            os.utime(path, (time.time() - age,) * 2)
    folder = store.local_folder(_model(store, tmp_path / "model", FILES))
    assert {path.name for path in cache.iterdir()} == {folder.name, ".unfinished-new"}


def test_entries_of_a_shared_cache_may_vanish_and_none_is_dropped(store, cache, tmp_path):
    cache.mkdir()
    (cache / "vanished").symlink_to(tmp_path / "nothing")
    folders = [store.local_folder(_model(store, tmp_path / f"{n}", {"weights": str(n)})) for n in range(8)]
    assert [_read(folder) for folder in folders] == [{"weights": str(number)} for number in range(8)]


def test_only_the_last_used_stay_in_a_scratch_folder(store, tmp_path, monkeypatch):
    monkeypatch.delenv("STEERLM_MODEL_CACHE", raising=False)
    folders = [store.local_folder(_model(store, tmp_path / f"{n}", {"weights": str(n)})) for n in range(8)]
    assert [folder.is_dir() for folder in folders] == [False] * 2 + [True] * 6


def test_a_copy_is_on_the_disk_before_it_has_its_name(store, cache, tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.add(os.fstat(handle).st_ino), fsync(handle)))
    folder = store.local_folder(_model(store, tmp_path / "model", FILES))
    assert {path.stat().st_ino for path in (*folder.rglob("*"), folder)} <= synced


def test_a_cache_that_cannot_be_written_to_is_named(store, cache, tmp_path):
    cache.write_text("a file")
    with pytest.raises(ScratchError, match=rf"{cache}.*STEERLM_MODEL_CACHE"):
        store.local_folder(_model(store, tmp_path / "model", FILES))
