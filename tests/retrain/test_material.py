"""What a run would be trained on: every change of an input is seen, wherever the input lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import DataError
from steerlm_core.retrain.material import material_digest
from steerlm_core.store import open_store
from steerlm_core.store.s3 import S3Objects
from tests.tiny import tiny_settings


def _config(source: str) -> RunConfig:
    settings = tiny_settings()
    return parse_config({**settings, "prompts": {**settings["prompts"], "source": source}}, "test")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_change_of_a_file_is_seen_however_it_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / "prompts 1.jsonl"
    config = _config(form.format(str(path) if form == "{}" else str(path).replace(" ", "%20")))
    path.write_text("one")
    first = material_digest(config)
    assert material_digest(config) == first
    path.write_text("two")
    assert material_digest(config) != first


def test_a_change_of_an_object_is_seen_without_reading_it(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, config = open_store(bucket), _config(f"{bucket}/prompts.jsonl")
    store.put("prompts.jsonl", b"one")
    store.put("prompts.jsonl.old", b"none")

    def refuse(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(S3Objects, "read_versioned", refuse)
    first = material_digest(config)
    store.put("prompts.jsonl.old", b"another")
    assert material_digest(config) == first
    store.put("prompts.jsonl", b"two")
    assert material_digest(config) != first


def test_a_change_in_a_folder_of_a_bucket_is_seen(bucket: str) -> None:
    store, settings = open_store(bucket), tiny_settings()
    settings["models"] |= {"policy": f"{bucket}/policy/"}
    config = parse_config(settings, "test")
    store.put("policy/config.json", b"{}")
    first = material_digest(config)
    store.put("policy/model.safetensors", b"x")
    assert material_digest(config) != first


@pytest.mark.parametrize("place", ["", "file://", "s3"])
def test_what_is_not_there_is_named(bucket: str, tmp_path: Path, place: str) -> None:
    source = f"{bucket}/no.jsonl" if place == "s3" else f"{place}{tmp_path}/no.jsonl"
    with pytest.raises(DataError, match=rf"prompts: '{source}': there is no such file or folder"):
        material_digest(_config(source))
