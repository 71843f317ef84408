"""Objects on a disk."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

import steerlm_core.store.local as local
from steerlm_core.errors import StoreError
from steerlm_core.store import open_store


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


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


def test_a_write_does_not_mind_that_another_removes_its_folder(disk):
    def come_and_go(name: str) -> None:
        for _ in range(200):
            disk.put(f"leases/{name}", b"")
            disk.delete([f"leases/{name}"])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(come_and_go, ("one", "two", "three")))


def test_a_file_url_is_a_directory(tmp_path):
    open_store(f"file://{tmp_path}/with%20space").put("x", b"1")
    assert (tmp_path / "with space" / "x").read_bytes() == b"1"


def test_what_one_user_writes_another_may_read(disk):
    disk.put("put", b"")
    disk.create("created", b"")
    part = disk.write_table("table", 0, pa.table({"x": [1]}), "train")
    for key in ("put", "created", part.key):
        assert (Path(disk.root) / key).stat().st_mode & 0o777 == 0o644
