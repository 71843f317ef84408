"""gc: nothing foreign is touched, and nothing that is still needed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from steerlm_core.cli import app
from steerlm_core.config import parse_config
from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.retrain.retention import objects_of
from steerlm_core.store import open_store
from steerlm_core.store.contents import read_contents
from steerlm_core.store.gc import find_rubbish, remove, retired_prefixes
from steerlm_core.store.lease import hold
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal
from tests.runs import loop_at, run_at
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


DAYS = 2 * 86_400.0
RUBBISH = (
    "prompts/part-00000-0123456789ab.parquet",
    "iterations/000/candidates/part-00007-0123456789ab.parquet",
    "iterations/007/groups/part-00007-0123456789ab.parquet",
    "iterations/001/model/0123456789ab/model.safetensors",
    "iterations/000/train/checkpoints/step-00000003/tensors-00000.safetensors",
    "iterations/000/train/checkpoints/step-00000003-0123abcd/tensors-00000.safetensors",
    "iterations/000/train/checkpoints/latest.json",
    "iterations/000/labels/records/00007.json",
    "leases/000-train.json",
    "leases/000-generate-1of4.json",
    "leases/probe-" + "0" * 32,
)
UNFINISHED = (
    "iterations/007/labels/part-00000-0123456789ab.parquet",
    "iterations/007/labels/part-00001-0123456789ab.parquet",
    "iterations/007/labels/records/00000.json",
    "iterations/007/model/0123456789ab/model.safetensors",
    "leases/007-label.json",
)
FOREIGN = (
    "notes.txt",
    "prompts/prompts.jsonl",
    "iterations/000/candidates/my-part.parquet",
    "iterations/000/model/README.md",
    "iterations/readme.txt",
    "thesis/part-00000-0123456789ab.parquet",
    "leases/README.txt",
    "events/mine.jsonl",
)


def _put(run: RunStore, keys: tuple[str, ...], age: float) -> None:
    for key in keys:
        run.put(key, b"x")
    _age(run, age)


def _age(run: RunStore, seconds: float) -> None:
    """Make every object of a run so old."""
    then = time.time() - seconds
    for path in Path(run.root).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_gc_removes_what_no_document_names_and_nothing_else(run):
    before = {found.key for found in run.listing()} - set(RUBBISH)
    before = {key for key in before if not any(name in key for name in ("leases/", "/train/", "/records/"))}
    _put(run, (*RUBBISH, *FOREIGN), DAYS)
    code, said = _steerlm("gc", run.root)
    assert code == 0
    assert all(key in said for key in RUBBISH)
    assert not any(key in said for key in FOREIGN)
    assert {found.key for found in run.listing()} >= {*RUBBISH, *FOREIGN}
    assert _steerlm("gc", run.root, "--delete")[0] == 0
    after = {found.key for found in run.listing() if "/train/" not in found.key}
    assert after == before | set(FOREIGN)
    assert problems(run) == {}


def test_gc_leaves_unfinished_outputs_alone_while_a_runner_is_at_work(run):
    mine, orphan = RUBBISH[2], RUBBISH[1]
    _put(run, (mine, orphan), DAYS)
    with hold(run, "007-weigh", 60, print):
        code, said = _steerlm("gc", run.root, "--delete")
    assert code == 0
    assert "At work: 007-weigh" in said
    assert run.exists(mine)
    assert not run.exists(orphan)


def test_gc_leaves_alone_what_may_be_waiting_for_its_manifest(run):
    _age(run, DAYS)
    for key in UNFINISHED:
        run.put(key, b"x")
    assert _steerlm("gc", run.root, "--delete")[0] == 0
    assert all(run.exists(key) for key in UNFINISHED)
    _age(run, DAYS)
    assert _steerlm("gc", run.root, "--delete")[0] == 0
    assert not any(run.exists(key) for key in UNFINISHED)


def test_gc_takes_a_holder_of_a_long_lease_for_alive(run):
    """It renews its lease every quarter of that time."""
    with hold(run, "007-label", 3600, print):
        _put(run, UNFINISHED[:3], DAYS)
        then = time.time() - 3000
        os.utime(Path(run.root) / "leases/007-label.json", (then, then))
        assert "At work: 007-label" in _steerlm("gc", run.root, "--delete")[1]
    assert all(run.exists(key) for key in UNFINISHED[:3])


def test_gc_removes_the_records_of_a_step_before_its_parts(run, monkeypatch):
    """Killed in between, it must not leave a record of a part that is gone: nobody would make the part again."""
    _put(run, UNFINISHED, DAYS)
    gone: list[str] = []
    monkeypatch.setattr(LocalObjects, "delete", lambda _, keys: gone.extend(keys))
    assert _steerlm("gc", run.root, "--delete")[0] == 0
    assert gone.index(UNFINISHED[2]) < gone.index(UNFINISHED[0])


@pytest.mark.parametrize("taken_up", ["and committed", "and held"])
def test_gc_spares_what_somebody_has_taken_up_since_it_looked(run, taken_up):
    labels = UNFINISHED[:2]
    _put(run, labels, DAYS)
    rubbish = find_rubbish(run, read_contents(run), None, None)
    assert {found.key for found in rubbish.unfinished} >= set(labels)
    with hold(run, "007-label", 60, print):
        if taken_up == "and held":
            remove(run, rubbish)
    run.put("iterations/007/labels/manifest.json", b"stands")
    remove(run, rubbish)
    assert all(run.exists(key) for key in labels)


@pytest.mark.parametrize("damage", [None, "run.json", "iterations/000/commit.json"])
def test_a_run_that_goes_goes_whole_and_what_is_foreign_stays(run, damage):
    """Also one that is damaged, and one that an interrupted removal has left: no document tells what was there."""
    foreign = {*FOREIGN, "thesis/train/mine.txt", "iterations/000/notes/manifest.json"} - {"events/mine.jsonl"}
    _put(run, (*RUBBISH, *UNFINISHED), 0)
    if damage:
        run.put(damage, b"damaged")
    whole = {found.key for found in run.listing()}
    _put(run, tuple(foreign), 0)
    keys, _ = objects_of(run)
    assert set(keys) == whole
    assert keys[-1] == "run.json"
    run.delete(keys[: len(keys) // 2])
    assert set(objects_of(run)[0]) == set(keys[len(keys) // 2 :])


def test_retention_keeps_the_best_and_the_last(run):
    contents = read_contents(run)
    best = contents.commits[-1]["best_iteration"]
    remove(run, find_rubbish(run, contents, keep_models=0, keep_candidates=1))
    accepted = [number for number, commit in enumerate(contents.commits) if commit["accepted"]]
    kept = {best, 2, *accepted[-1:]}
    for number in range(3):
        (model,) = {part.key.rsplit("/", 2)[0] for part in contents.manifests[f"iterations/{number:03d}/model"].parts}
        here = any(True for found in run.listing(f"{model}/") if not found.key.endswith(".json"))
        assert here == (number in kept)
    assert problems(run) == {}
    gone = min(set(range(3)) - kept)
    with pytest.raises(RunStateError, match=r"groups: removed by the run's retention"):
        run.read_table(contents.manifests[f"iterations/{gone:03d}/groups"].parts[0])
    assert find_rubbish(run, read_contents(run), 0, 1).everything() == []


def _promote_iteration(run: RunStore, base: RunStore, iteration: int) -> None:
    """Let `promoted.json` name an iteration of a run, which from now on belongs to that base root."""
    described = run.document("run.json")
    run.put("run.json", seal({**described, "origin": {"base_root": base.root}}))
    entry = {"root": run.root, "run_id": described["run_id"], "iteration": iteration}
    base.put("promoted.json", seal({"entries": [entry], "in_use": [0]}))


def test_retention_keeps_what_is_promoted(run, tmp_path):
    """A run that was promoted at one iteration, and then went on to better ones."""
    contents = read_contents(run)
    prefixes = {prefix for prefix in retired_prefixes(contents, 0, 0) if prefix.endswith("/model")}
    number = int(min(prefixes).split("/")[1])
    _promote_iteration(run, open_store(str(tmp_path / "base")), number)
    code, said = _steerlm("gc", run.root, "--keep-models", "0", "--keep-candidates", "0", "--delete")
    assert code == 0, said
    assert not any(prefix.startswith(f"iterations/{number:03d}/") for prefix in read_contents(run).removed)
    assert problems(run) == {}


def test_retention_as_the_loop_goes_along_keeps_what_is_promoted(toy, tmp_path):
    raw = toy.model_dump(mode="json")
    config = parse_config({**raw, "runtime": {**raw["runtime"], "keep_models": 0, "keep_candidates": 0}}, "test")
    base, run = open_store(str(tmp_path / "base")), open_store(str(tmp_path / "run"))
    run_at(run.root, config)
    _promote_iteration(run, base, 0)
    loop_at(run.root, iterations=2)
    assert read_contents(run).removed == set()


def test_a_run_out_of_reach_of_its_base_root_goes_on_and_removes_nothing(toy, bucket, tmp_path):
    raw = toy.model_dump(mode="json")
    config = parse_config({**raw, "runtime": {**raw["runtime"], "keep_candidates": 0}}, "test")
    run = open_store(str(tmp_path / "run"))
    run_at(run.root, config, {"base_root": "s3://no-such-bucket/base", "started_from": None})
    loop_at(run.root, iterations=2)
    assert read_contents(run).removed == set()
