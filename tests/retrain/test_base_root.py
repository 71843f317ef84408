"""Base roots on a disk: who has one and who has not, what stays of it, and how it is spelled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from steerlm_core import layout
from steerlm_core.begin import begin as begin_step
from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import DataError, ModelError, RunStateError
from steerlm_core.retrain import promotion, running
from steerlm_core.retrain.begin import begin
from steerlm_core.retrain.finish import finish
from steerlm_core.retrain.material import material_digest
from steerlm_core.run import Run
from steerlm_core.runtime import run_step
from steerlm_core.store import open_store
from steerlm_core.store.lease import hold
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.sealed import seal
from tests.in_process import Steerlm
from tests.runs import run_at
from tests.toy.world import build, small

BAD_END = {"kind": "regressed", "best_iteration": None}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """One iteration of the toy world, whose policy is the prior."""
    raw = small(build(tmp_path_factory.mktemp("world"))).model_dump(mode="json", exclude_none=True)
    raw["models"]["policy"] = raw["models"]["prior"]
    return parse_config({**raw, "max_iterations": 1, "raters": {}}, "test")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return str(tmp_path / "base")


def _changed(config: RunConfig, **changes: Any) -> RunConfig:
    return parse_config({**config.model_dump(mode="json"), **changes}, "test")


def _written(config: RunConfig, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(config.model_dump_json(exclude_none=True))  # JSON is YAML
    return path


def _begin(base: str, config: RunConfig, workflow: str, *ended: str) -> Run:
    """Begin a run in a Workflow while some others have ended, as the pipeline's first step does."""
    job = running.Job(f"job-of-{workflow}", running.WorkflowName(workflow, "team-a"))
    begun = begin(running.open_base(base), config, job, lambda other: other.name in ended)
    assert begun.store is not None
    return run_at(begun.store.root, begun.config, begun.origin)


def _noted(base: str) -> dict[str, Any]:
    return open_store(base).document(layout.RUNNING)


# ---------------------------------------------------------------------------------------------- who has it


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _fail(*_: object, **__: object) -> None:
    raise DataError("no more")


@pytest.mark.parametrize(("end", "code"), [(_interrupt, 130), (_fail, 2)])
def test_a_retraining_that_fails_gives_the_base_root_back_and_the_next_goes_on(
    config: RunConfig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steerlm: Steerlm, end: Any, code: int
) -> None:
    given = _written(config, tmp_path)
    monkeypatch.setattr("steerlm_core.runtime.run_loop", end)
    assert steerlm("retrain", given, base).code == code
    held = _noted(base)
    assert (held["job"], held["process"]) == ("", "")
    assert open_store(held["root"]).exists("run.json")
    again = steerlm("retrain", given, base)
    assert again.code == code
    assert f"Going on with the unfinished run {held['root']}." in again.out


def test_a_raised_limit_reaches_the_run_that_is_gone_on_with(
    config: RunConfig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steerlm: Steerlm
) -> None:
    limits: list[int] = []

    def stop(*arguments: Any) -> None:
        limits.append(arguments[1])
        raise KeyboardInterrupt

    monkeypatch.setattr("steerlm_core.runtime.run_loop", stop)
    for limit in (1, 4):
        steerlm("retrain", _written(_changed(config, max_iterations=limit), tmp_path), base)
    assert limits == [1, 4]


def test_what_is_wrong_with_the_configuration_claims_nothing(config: RunConfig, base: str, tmp_path: Path) -> None:
    lost = _changed(config, prompts={"source": str(tmp_path / "no.jsonl")})
    with pytest.raises(DataError, match=r"prompts: '.*no\.jsonl': there is no such file or folder"):
        begin_step("", base, lost.model_dump(mode="json"), "", "one")
    assert not open_store(base).exists(layout.RUNNING)
    broken = _changed(config, models={**config.models.model_dump(), "policy": str(_written(config, tmp_path).parent)})
    with pytest.raises(ModelError, match="no model folder"):
        begin_step("", base, broken.model_dump(mode="json"), "", "one")
    assert _noted(base)["job"] == ""


def test_a_claim_ends_with_the_process_that_holds_it(base: str) -> None:
    code = (
        "from steerlm_core.retrain.running import *\n"
        f"claim(open_base({base!r}), Job('first', here=True), lambda _: None)\n"
        "print('claimed', flush=True)\n"
        "input()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"claimed\n"
        with pytest.raises(RunStateError, match="job 'first' is at work"):
            running.claim(running.open_base(base), running.Job("second"), lambda _: None)
        first.kill()
    running.claim(running.open_base(base), running.Job("second"), lambda _: None)
    assert _noted(base)["job"] == "second"


def test_nothing_new_leaves_an_unfinished_run_of_other_material_noted(config: RunConfig, base: str) -> None:
    begun = _begin(base, config, "one")
    other = _changed(config, seed=77)
    open_store(base).put(layout.FINISHED, seal({"root": f"{base}/runs/zero", "material": material_digest(other)}))
    two = running.Job("two", running.WorkflowName("two", "team-a"))
    assert begin(running.open_base(base), other, two, lambda _: True).store is None
    assert (_noted(base)["job"], _noted(base)["root"]) == ("", begun.root)
    assert _begin(base, config, "three").root == begun.root


def test_a_workflow_that_is_retried_after_a_newer_run_has_begun_stops(config: RunConfig, base: str) -> None:
    old = _begin(base, config, "one")
    new = _begin(base, _changed(config, seed=77), "two", "one")
    with pytest.raises(RunStateError, match=r"Workflow 'two' in namespace 'team-a' \(.*\) is at work under the same"):
        run_step(old, "generate", 0)
    assert _noted(base)["root"] == new.root
    with pytest.raises(RunStateError, match=rf"Workflow 'two' .* has this base root, and not {old.root}"):
        finish(old, BAD_END, None)
    assert not open_store(base).exists(layout.FINISHED)
    finish(new, BAD_END, None)
    finish(new, BAD_END, None)  # repeated
    with pytest.raises(RunStateError, match="nobody has this base root"):
        finish(old, BAD_END, None)
    assert open_store(base).document(layout.FINISHED)["root"] == new.root
    with running.renewed(running.open_base(base), old.root):  # by hand, where nobody is at work
        pass


def test_a_copy_of_a_run_elsewhere_is_another_run(config: RunConfig, base: str, tmp_path: Path) -> None:
    begun = _begin(base, config, "one")
    copy = str(shutil.copytree(begun.root, tmp_path / Path(begun.root).name))
    before = _noted(base)
    with running.renewed(running.open_base(base), copy):
        pass
    with pytest.raises(RunStateError, match="has this base root, and not"):
        finish(run_at(copy), BAD_END, None)
    assert _noted(base) == before


# --------------------------------------------------------------------------------------------- what stays


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


# --------------------------------------------------------------------------------- how a root is spelled


@pytest.fixture(scope="module")
def retrained(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base root that was given as a relative path, with one promoted run."""
    from typer.testing import CliRunner

    from steerlm_core.cli import app

    folder = tmp_path_factory.mktemp("retrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = CliRunner().invoke(app, ["retrain", str(_written(config, folder)), "./base/"])
    assert ended.exit_code == 0, ended.output
    return folder / "base"


def test_documents_name_roots_that_lead_there_from_every_folder(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steerlm: Steerlm
) -> None:
    store = open_store(str(retrained))
    finished, entry = store.document(layout.FINISHED), promotion.promoted(store)
    assert entry is not None
    run = Path(entry["root"])
    assert run.parent == retrained / "runs"
    assert finished["root"] == entry["root"]
    assert (Path(entry["model"]) / "config.json").is_file()
    assert open_store(str(run)).document("run.json")["origin"]["base_root"] == str(retrained)
    other = str(tmp_path / "other")
    monkeypatch.chdir(run)
    assert steerlm("promote", "../" + run.name + "/", "--base-root", other).code == 0
    there = promotion.promoted(open_store(other))
    assert there is not None
    assert (there["root"], there["model"]) == (entry["root"], entry["model"])


@pytest.mark.parametrize(("losses", "promoted"), [(1, True), (2, False)])
def test_a_promotion_that_was_overtaken_at_the_last_moment_is_tried_again(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: int, promoted: bool
) -> None:
    store = open_store(str(retrained))
    root = store.document(layout.FINISHED)["root"]
    run = run_at(root)
    store.delete([layout.PROMOTED, layout.FINISHED])
    store.put(layout.RUNNING, seal({**_noted(str(retrained)), "job": "one", "root": root}))
    create, lost = LocalObjects.create, [False] * losses

    def losing(self: LocalObjects, key: str, data: bytes) -> bool:
        return lost.pop() if key == layout.PROMOTED and lost else create(self, key, data)

    monkeypatch.setattr(LocalObjects, "create", losing)
    good_end = {"kind": "converged", "best_iteration": 0}
    if promoted:
        assert finish(run, good_end, None)[0]
    else:
        with pytest.raises(promotion.ChangedMeanwhileError, match="look again, and repeat"):
            finish(run, good_end, None)
    assert (promotion.promoted(store) is not None) == promoted
    assert store.exists(layout.FINISHED) == promoted
    finish(run, good_end, None)
