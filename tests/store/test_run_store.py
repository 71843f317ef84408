"""The run root, on a disk and in a bucket: whole objects or none, one winner, and no damaged byte goes unnoticed."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

import steerlm_core.store.local as local
from steerlm_core.errors import ConfigError, RunStateError, StoreError
from steerlm_core.store import open_store
from steerlm_core.store.manifest import Manifest, Part
from steerlm_core.store.probe import probe
from steerlm_core.store.run_store import RunStore


@pytest.fixture(params=["disk", "bucket"])
def store(request, tmp_path: Path) -> RunStore:
    root = str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("bucket")
    return open_store(root)


@pytest.fixture
def disk(tmp_path: Path) -> RunStore:
    return open_store(str(tmp_path / "root"))


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


# ------------------------------------------------------------------------------------------------------ objects


def test_put_replaces_and_read_returns(store):
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    assert store.exists("a/b.json")
    assert store.read("a/b.json") == b"two"
    with pytest.raises(RunStateError, match=r"a/c\.json: missing"):
        store.read("a/c.json")


def test_a_reader_never_sees_a_part_of_an_object(store):
    whole = {bytes([letter]) * 2_000_000 for letter in b"ab"}
    store.put("object", min(whole))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for data in whole:
                store.put("object", data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [store.read("object") in whole for _ in range(100)]
    finally:
        stop.set()
        writer.join()
    assert all(seen)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_put_leaves_the_old_object_and_no_rubbish(disk, monkeypatch, failing):
    disk.put("a/object", b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(local.os, failing, fail)
        with pytest.raises(StoreError, match=r"a/object: cannot be written \(disk full\)"):
            disk.put("a/object", b"new")
        with pytest.raises(StoreError, match="disk full"):
            disk.write_table("a", 0, pa.table({"x": [1]}), "train")
    assert disk.read("a/object") == b"old"
    assert [path.name for path in _files(Path(disk.root))] == ["object"]


def test_create_has_one_winner_among_sixteen(store):
    barrier = threading.Barrier(16)
    won: list[int] = []

    def race(number: int) -> None:
        barrier.wait()
        if store.create("commit.json", str(number).encode()):
            won.append(number)

    for _ in range(10):
        won.clear()
        threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read("commit.json") == str(won[0]).encode()
        assert [found.key for found in store.listing()] == ["commit.json"]
        store.delete(["commit.json"])


def test_swap_replaces_that_version_only_and_knows_its_own_bytes(store):
    store.put("lease", b"first")
    _, version = store.read_versioned("lease")
    assert store.swap("lease", b"second", version)
    assert not store.swap("lease", b"third", version)
    assert store.read("lease") == b"second"
    assert store.swap("lease", b"second", version)  # as a repeated request finds it when the first answer got lost
    assert not store.swap("no lease", b"x", version)


def test_create_knows_its_own_bytes(store):
    assert store.create("commit.json", b"mine")
    assert store.create("commit.json", b"mine")
    assert not store.create("commit.json", b"other")


def test_delete_and_listing(store):
    for key in ("a/b/one", "a/two", "b/three"):
        store.put(key, b"12")
    assert {(found.key, found.size) for found in store.listing("a/")} == {("a/b/one", 2), ("a/two", 2)}
    store.delete(["a/b/one", "a/two", "never/was"])
    assert [found.key for found in store.listing()] == ["b/three"]


def test_a_write_does_not_mind_that_another_removes_its_folder(disk):
    def come_and_go(name: str) -> None:
        for _ in range(200):
            disk.put(f"leases/{name}", b"")
            disk.delete([f"leases/{name}"])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(come_and_go, ("one", "two", "three")))


def test_the_probe_passes_and_leaves_nothing(store):
    probe(store)
    assert list(store.listing()) == []


@pytest.mark.parametrize("ignored", ["create", "swap"])
def test_a_store_without_conditional_puts_is_refused(store, monkeypatch, ignored):
    def ignores(key: str, data: bytes, *_: object) -> bool:
        store.put(key, data)
        return True

    monkeypatch.setattr(store, ignored, ignores)
    with pytest.raises(StoreError, match="this store ignores 'If-"):
        probe(store)
    assert list(store.listing()) == []


@pytest.mark.parametrize("root", ["s3://", "s3://UPPER/x", "s3:///key", "gs://bucket/x", "http://host/x"])
def test_what_is_no_root_is_refused(root):
    with pytest.raises(ConfigError, match="is no run root"):
        open_store(root)


def test_a_file_url_is_a_directory(tmp_path):
    open_store(f"file://{tmp_path}/with%20space").put("x", b"1")
    assert (tmp_path / "with space" / "x").read_bytes() == b"1"


def test_what_one_user_writes_another_may_read(disk):
    disk.put("put", b"")
    disk.create("created", b"")
    part = disk.write_table("table", 0, pa.table({"x": [1]}), "train")
    for key in ("put", "created", part.key):
        assert (Path(disk.root) / key).stat().st_mode & 0o777 == 0o644


# ------------------------------------------------------------------------------------------------------- tables


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


# ------------------------------------------------------------------------------------------------------ folders

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
