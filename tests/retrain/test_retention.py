"""What stays of a base root."""

from __future__ import annotations

import os
import time

from steerlm_core import layout
from steerlm_core.store import open_store
from steerlm_core.store.lease import hold
from steerlm_core.store.sealed import seal
from tests.in_process import Steerlm


def _runs(base: str, *names: str) -> None:
    for age, name in enumerate(reversed(names)):
        run = open_store(f"{base}/runs/{name}")
        run.put("run.json", seal({"run_id": name, "origin": {}}))
        begun = time.time() - 60 * age
        os.utime(f"{base}/runs/{name}/run.json", (begun, begun))


def test_gc_keeps_the_newest_runs_and_all_where_there_are_no_more(base: str, steerlm: Steerlm) -> None:
    _runs(base, "a", "b", "c", "d")
    open_store(base).put(layout.RUNNING, seal({"root": None}))
    assert "0 run(s)" in steerlm("gc", base, "--keep-runs", 5).out
    said = steerlm("gc", base, "--keep-runs", 2).out
    assert "2 run(s)" in said
    assert all((f"runs/{name}" in said) == (name in "ab") for name in "abcd")  # the oldest


def test_gc_refuses_what_is_said_of_the_other_kind_of_root(base: str, steerlm: Steerlm) -> None:
    _runs(base, "a")
    open_store(base).put(layout.RUNNING, seal({"root": None}))
    for words in ((), ("--keep-runs", 1, "--keep-models", 1)):
        ended = steerlm("gc", base, *words)
        assert (ended.code, "is a base root. Say only" in ended.err) == (2, True)
    ended = steerlm("gc", f"{base}/runs/a", "--keep-runs", 1)
    assert (ended.code, "is no base root" in ended.err) == (2, True)


def test_gc_knows_a_run_however_a_document_spells_it(base: str, steerlm: Steerlm) -> None:
    _runs(base, "at-work", "finished", "old", "in-use")
    store = open_store(base)
    store.put(layout.RUNNING, seal({"root": "base/runs/at-work"}))
    store.put(layout.FINISHED, seal({"root": "./base//runs/finished"}))
    store.put(layout.PROMOTED, seal({"entries": [{"root": "s3://b/base/runs/in-use/"}], "in_use": [0]}))
    said = steerlm("gc", base, "--keep-runs", 0).out
    assert "1 run(s)" in said
    assert "old" in said


def test_gc_leaves_a_run_that_was_resumed_by_hand_alone(base: str, steerlm: Steerlm) -> None:
    _runs(base, "resumed", "old")
    open_store(base).put(layout.RUNNING, seal({"root": None}))
    with hold(open_store(f"{base}/runs/resumed"), "001-train", 60, print):
        assert "1 run(s)" in steerlm("gc", base, "--keep-runs", 0).out
    assert "2 run(s)" in steerlm("gc", base, "--keep-runs", 0).out


def test_gc_removes_old_runs_but_none_that_is_needed(bucket, steerlm):
    """Five runs by name: one in use, one to roll back to, one at work, one last finished, one that may go."""
    base = open_store(bucket)
    for name in ("old", "before", "in-use", "finished", "at-work"):
        run = open_store(f"{bucket}/runs/{name}")
        run.put("run.json", seal({"run_id": name, "origin": {}}))
        run.put("events/local-0.jsonl", b"")
        run.put("notes.txt", b"somebody's")
    entries = [{"root": f"{bucket}/runs/{name}"} for name in ("before", "in-use")]
    base.put("promoted.json", seal({"entries": entries, "in_use": [0, 1]}))
    base.put("finished.json", seal({"root": f"{bucket}/runs/finished"}))
    base.put("running.json", seal({"root": f"{bucket}/runs/at-work"}))
    found = steerlm("gc", bucket, "--keep-runs", 0).out
    assert f"{bucket}/runs/old" in found
    assert "1 run(s)" in found
    assert open_store(f"{bucket}/runs/old").exists("run.json")
    assert "0 run(s)" in steerlm("gc", bucket, "--keep-runs", 5, "--delete").out
    assert steerlm("gc", bucket, "--keep-runs", 0, "--delete").code == 0
    assert [found.key for found in open_store(f"{bucket}/runs/old").listing()] == ["notes.txt"]
    kept = {found.key.split("/")[1] for found in base.listing("runs/") if found.key.endswith("run.json")}
    assert kept == {"before", "in-use", "finished", "at-work"}
    unsaid = steerlm("gc", bucket)
    assert (unsaid.code, "is a base root. Say only how many" in unsaid.err) == (2, True)
