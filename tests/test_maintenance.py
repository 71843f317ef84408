"""verify, gc and copy: every damage is found, nothing foreign is touched, and a copy is the run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from steerlm_core.cli import app
from steerlm_core.config import parse_config
from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.loop import run_loop
from steerlm_core.observe.events import EventLog
from steerlm_core.run_root import create_or_open_run
from steerlm_core.sealed import seal, unseal
from steerlm_core.store import open_store
from steerlm_core.store.contents import read_contents
from steerlm_core.store.gc import find_rubbish, remove, retired_prefixes
from steerlm_core.store.lease import hold
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.verify import verify
from tests.toy.world import build, small


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three iterations of the toy world; not to be changed."""
    root = tmp_path_factory.mktemp("finished") / "run"
    run_loop(str(root), small(build(tmp_path_factory.mktemp("toy"))), EventLog("toy", None), 3)
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunStore:
    """The same, to be changed."""
    return open_store(str(shutil.copytree(finished, tmp_path / "run")))


def _problems(store: RunStore) -> dict[str, str]:
    return verify(store, lambda *_: None)[1]


def _steerlm(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, list(arguments))
    if isinstance(ended.exception, SteerLMError):
        return 2, str(ended.exception)
    return ended.exit_code, ended.output


# ------------------------------------------------------------------------------------------------------- verify


def test_a_sound_run_is_sound(run):
    assert _problems(run) == {}
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
        found = read_contents(run).problems if key in contents.documents else _problems(run)
        assert key in found, key
        run.put(key, whole)
    assert _problems(run) == {}


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
        run_loop(run.root, None, EventLog("toy", None), 3)


def test_a_commit_that_names_another_model_is_found(run):
    key = "iterations/001/commit.json"
    run.put(key, seal({**unseal(run.read(key), key), "model": "0" * 64}))
    assert _problems(run) == {
        "iterations/001/model/manifest.json": "is not the output that the iteration's commit names"
    }
    code, said = _steerlm("verify", run.root)
    assert code == 1
    assert "1 of the objects" in said


def test_a_manifest_of_another_run_is_refused(run):
    key = "iterations/001/labels/manifest.json"
    run.put(key, seal({**unseal(run.read(key), key), "run_id": "another-1234"}))
    assert "belongs to run 'another-1234'" in _problems(run)[key]
    run.delete(["iterations/001/groups/manifest.json"])
    with pytest.raises(RunStateError, match=r"labels/manifest\.json: belongs to run 'another-1234'"):
        run_loop(run.root, None, EventLog("toy", None), 3)


# ----------------------------------------------------------------------------------------------------------- gc

RUBBISH = (
    "prompts/part-00000-0123456789ab.parquet",
    "iterations/000/candidates/part-00007-0123456789ab.parquet",
    "iterations/007/groups/part-00007-0123456789ab.parquet",
    "iterations/001/model/0123456789ab/model.safetensors",
    "iterations/000/train/checkpoints/step-00000003/tensors-00000.safetensors",
    "iterations/000/train/checkpoints/latest.json",
    "iterations/000/labels/records/00007.json",
    "leases/000-train.json",
    "leases/000-generate-1of4.json",
    "leases/probe-" + "0" * 32,
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


def test_gc_removes_what_no_document_names_and_nothing_else(run):
    before = {found.key for found in run.listing()} - set(RUBBISH)
    before = {key for key in before if not any(name in key for name in ("leases/", "/train/", "/records/"))}
    for key in (*RUBBISH, *FOREIGN):
        run.put(key, b"x")
    code, said = _steerlm("gc", run.root)
    assert code == 0
    assert all(key in said for key in RUBBISH)
    assert not any(key in said for key in FOREIGN)
    assert {found.key for found in run.listing()} >= {*RUBBISH, *FOREIGN}
    assert _steerlm("gc", run.root, "--delete")[0] == 0
    after = {found.key for found in run.listing() if "/train/" not in found.key}
    assert after == before | set(FOREIGN)
    assert _problems(run) == {}


def test_gc_leaves_unfinished_outputs_alone_while_a_runner_is_at_work(run):
    mine, orphan = RUBBISH[2], RUBBISH[1]
    for key in (mine, orphan):
        run.put(key, b"x")
    with hold(run, "007-weigh", 60, print):
        code, said = _steerlm("gc", run.root, "--delete")
    assert code == 0
    assert "At work: 007-weigh" in said
    assert run.exists(mine)
    assert not run.exists(orphan)


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
    assert _problems(run) == {}
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
    assert _problems(run) == {}


def test_retention_as_the_loop_goes_along_keeps_what_is_promoted(tmp_path):
    raw = small(build(tmp_path / "world")).model_dump(mode="json")
    config = parse_config({**raw, "runtime": {**raw["runtime"], "keep_models": 0, "keep_candidates": 0}}, "test")
    base, run = open_store(str(tmp_path / "base")), open_store(str(tmp_path / "run"))
    create_or_open_run(run.root, config)
    _promote_iteration(run, base, 0)
    run_loop(run.root, None, EventLog("toy", None), 2)
    assert read_contents(run).removed == set()


def test_a_run_out_of_reach_of_its_base_root_goes_on_and_removes_nothing(bucket, tmp_path):
    raw = small(build(tmp_path / "world")).model_dump(mode="json")
    config = parse_config({**raw, "runtime": {**raw["runtime"], "keep_candidates": 0}}, "test")
    run = open_store(str(tmp_path / "run"))
    create_or_open_run(run.root, config, {"base_root": "s3://no-such-bucket/base", "started_from": None})
    run_loop(run.root, None, EventLog("toy", None), 2)
    assert read_contents(run).removed == set()


# --------------------------------------------------------------------------------------------------------- copy


def test_a_copy_in_a_bucket_is_the_run_and_goes_on(run, bucket, tmp_path):
    code, said = _steerlm("copy", run.root, bucket)
    assert code == 0, said
    there = open_store(bucket)
    assert _problems(there) == {}
    assert read_contents(there).documents == read_contents(run).documents
    run_loop(bucket, None, EventLog("toy", None), 4)
    run_loop(run.root, None, EventLog("toy", None), 4)
    for key in ("iterations/003/evaluation/evaluation.json", "iterations/003/commit.json"):
        assert there.read(key) == run.read(key)
    back = str(tmp_path / "back")
    assert _steerlm("copy", bucket, back)[0] == 0
    assert _problems(open_store(back)) == {}


def test_a_copy_that_broke_off_is_no_run_and_goes_on(run, tmp_path):
    target = open_store(str(tmp_path / "target"))
    assert _steerlm("copy", run.root, target.root)[0] == 0
    target.delete(["run.json", "iterations/000/commit.json"])
    with pytest.raises(RunStateError, match="holds no run"):
        read_contents(target)
    assert _steerlm("copy", run.root, target.root)[0] == 0
    assert _problems(target) == {}


def test_neither_a_damaged_run_nor_onto_another_run_is_copied(run, finished, tmp_path):
    other = open_store(str(tmp_path / "other"))
    other.put("run.json", seal({"run_id": "other-1"}))
    assert "holds run 'other-1'" in _steerlm("copy", run.root, other.root)[1]
    part = next(iter(read_contents(run).parts()))
    run.put(part.key, b"x" * part.size)
    code, said = _steerlm("copy", run.root, str(tmp_path / "new"))
    assert code == 2
    assert f"{part.key}: damaged" in said
