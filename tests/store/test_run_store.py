"""Tables and folders of a run root, on a disk and in a bucket: no damaged byte goes unnoticed."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from steerlm_core.errors import RunStateError
from steerlm_core.store.manifest import Manifest, Part
from steerlm_core.store.run_store import RunStore


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _read(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _manifest(parts: list[Part]) -> Manifest:
    return Manifest(step="train", run_id="run", input_digest="d", parts=parts)


def _flip(store: RunStore, key: str, byte: int) -> None:
    data = bytearray(store.read(key))
    data[byte] ^= 1
    store.put(key, bytes(data))


def test_a_table_comes_back_and_its_name_tells_its_content(store):
    table = pa.table({"x": [1, 2, 3]})
    part = store.write_table("iterations/000/labels", 7, table, "held_out")
    assert store.read_table(part).equals(table)
    assert (part.rows, part.split) == (3, "held_out")
    assert part.key == f"iterations/000/labels/part-00007-{part.sha256[:12]}.parquet"
    assert store.size(part.key) == part.size
    assert store.write_table("iterations/000/labels", 7, table, "held_out") == part
    assert store.write_table("iterations/000/labels", 7, pa.table({"x": [1, 2, 4]}), "held_out").key != part.key
    assert store.read_table(part).equals(table)


@pytest.mark.parametrize("byte", [0, 200, -1])
def test_a_flipped_byte_in_a_part_is_found(store, byte):
    part = store.write_table("labels", 0, pa.table({"x": list(range(100))}), "train")
    _flip(store, part.key, byte)
    with pytest.raises(RunStateError, match=rf"{part.key}: damaged"):
        store.read_table(part)


def test_a_missing_part_is_named(store):
    part = store.write_table("labels", 0, pa.table({"x": [1]}), "train")
    store.delete([part.key])
    with pytest.raises(RunStateError, match=rf"{part.key}: missing"):
        store.read_table(part)


FOLDERS = {
    "flat": {"config.json": "{}", "model.safetensors": "weights"},
    "nested": {"config.json": "{}", "original/tokenizer.json": "t", "original/deep/er/file": "x"},
    "one file": {"config.json": "{}"},
    "one nested file": {"inner/config.json": "{}"},
    "all in one subfolder": {"inner/config.json": "{}", "inner/model.safetensors": "weights"},
    "all deep in one subfolder": {"a/b/config.json": "{}", "a/b/model.safetensors": "weights"},
}


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_comes_back_as_it_was(store, tmp_path, files):
    parts = store.write_folder("models/prior", _write(tmp_path / "source", files))
    folder = store.local_folder(_manifest(parts))
    assert _read(folder) == files
    assert all(part.key.startswith(f"models/prior/{folder.name}/") for part in parts)


def test_how_far_a_large_folder_is_moved_is_told_in_megabytes_and_nothing_of_a_small_one(store, tmp_path):
    told: list[tuple[int, int, str]] = []
    telling = store.telling(lambda *words: told.append(words))
    telling.local_folder(_manifest(telling.write_folder("m", _write(tmp_path / "small", {"a": "text"}))))
    assert not told
    source = _write(tmp_path / "large", {"config.json": "{}"})
    (source / "weights").write_bytes(b"x" * (40 << 20))
    parts = telling.write_folder("m", source)
    read = "checked" if store.path("") else "fetched"
    telling.local_folder(_manifest(parts))
    assert list(dict.fromkeys(unit for _, _, unit in told)) == ["MB hashed", "MB stored", f"MB {read}"]
    assert {total for _, total, _ in told} == {40}
    for unit in ("MB hashed", "MB stored", f"MB {read}"):
        done = [count for count, _, word in told if word == unit]
        assert done == sorted(done)
        assert done[0] < 40 == done[-1]
    told.clear()
    telling.write_folder("m", source)  # it stands there already
    assert told[-1] == (40, 40, "MB stored")
    told.clear()
    telling.local_folder(_manifest(parts))  # and here
    assert told[-1] == (40, 40, "MB checked")


def test_folders_of_other_content_stand_beside_each_other(store, tmp_path):
    first, second = {"config.json": "{}", "weights": "1"}, {"config.json": "{}", "weights": "2"}
    parts = store.write_folder("models/prior", _write(tmp_path / "one", first))
    other = store.write_folder("models/prior", _write(tmp_path / "two", second))
    assert _read(store.local_folder(_manifest(parts))) == first
    assert _read(store.local_folder(_manifest(other))) == second


def test_a_renamed_file_makes_another_folder(store, tmp_path):
    parts = store.write_folder("m", _write(tmp_path / "one", {"a": "text"}))
    other = store.write_folder("m", _write(tmp_path / "two", {"b": "text"}))
    assert parts[0].key.split("/")[1] != other[0].key.split("/")[1]


def test_a_flipped_byte_in_a_model_file_is_found(store, tmp_path):
    parts = store.write_folder("models/prior", _write(tmp_path / "source", FOLDERS["nested"]))
    damaged = next(part for part in parts if part.key.endswith("er/file"))
    _flip(store, damaged.key, 0)
    with pytest.raises(RunStateError, match=rf"{damaged.key}: damaged"):
        store.local_folder(_manifest(parts))


@pytest.mark.parametrize("kept", [0, 1])
def test_a_manifest_that_names_no_whole_folder_is_refused(store, tmp_path, kept):
    parts = store.write_folder("models/prior", _write(tmp_path / "source", FOLDERS["flat"]))
    with pytest.raises(RunStateError, match="no whole folder"):
        store.local_folder(_manifest(parts[:kept]))
