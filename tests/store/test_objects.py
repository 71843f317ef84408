"""Objects, on a disk and in a bucket: whole ones or none, and one winner."""

import threading

import pytest

from steerlm_core.errors import ConfigError, RunStateError
from steerlm_core.store import open_store


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


@pytest.mark.parametrize("root", ["s3://", "s3://UPPER/x", "s3:///key", "gs://bucket/x", "http://host/x"])
def test_what_is_no_root_is_refused(root):
    with pytest.raises(ConfigError, match="is no run root"):
        open_store(root)
