"""Who has a base root, and who has not: on a disk and on a real S3 server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steerlm_core import layout
from steerlm_core.begin import begin as begin_step
from steerlm_core.config import RunConfig
from steerlm_core.errors import DataError, ModelError, RunStateError
from steerlm_core.retrain import running
from steerlm_core.retrain.begin import begin
from steerlm_core.retrain.finish import finish
from steerlm_core.retrain.material import material_digest
from steerlm_core.runtime import run_step
from steerlm_core.store import open_store
from steerlm_core.store.sealed import seal
from tests.in_process import Steerlm
from tests.retrain.base import begin_in_bucket, begin_run, changed, noted, written
from tests.runs import run_at
from tests.waiting import until

BAD_END = {"kind": "regressed", "best_iteration": None}


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _fail(*_: object, **__: object) -> None:
    raise DataError("no more")


@pytest.mark.parametrize(("end", "code"), [(_interrupt, 130), (_fail, 2)])
def test_a_retraining_that_fails_gives_the_base_root_back_and_the_next_goes_on(
    config: RunConfig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steerlm: Steerlm, end: Any, code: int
) -> None:
    given = written(config, tmp_path)
    monkeypatch.setattr("steerlm_core.runtime.run_loop", end)
    assert steerlm("retrain", given, base).code == code
    held = noted(base)
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
        steerlm("retrain", written(changed(config, max_iterations=limit), tmp_path), base)
    assert limits == [1, 4]


def test_what_is_wrong_with_the_configuration_claims_nothing(config: RunConfig, base: str, tmp_path: Path) -> None:
    lost = changed(config, prompts={"source": str(tmp_path / "no.jsonl")})
    with pytest.raises(DataError, match=r"prompts: '.*no\.jsonl': there is no such file or folder"):
        begin_step("", base, lost.model_dump(mode="json"), "", "one")
    assert not open_store(base).exists(layout.RUNNING)
    broken = changed(config, models={**config.models.model_dump(), "policy": str(written(config, tmp_path).parent)})
    with pytest.raises(ModelError, match="no model folder"):
        begin_step("", base, broken.model_dump(mode="json"), "", "one")
    assert noted(base)["job"] == ""


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
    assert noted(base)["job"] == "second"


def test_nothing_new_leaves_an_unfinished_run_of_other_material_noted(config: RunConfig, base: str) -> None:
    begun = begin_run(base, config, "one")
    other = changed(config, seed=77)
    open_store(base).put(layout.FINISHED, seal({"root": f"{base}/runs/zero", "material": material_digest(other)}))
    two = running.Job("two", running.WorkflowName("two", "team-a"))
    assert begin(running.open_base(base), other, two, lambda _: True).store is None
    assert (noted(base)["job"], noted(base)["root"]) == ("", begun.root)
    assert begin_run(base, config, "three").root == begun.root


def test_a_workflow_that_is_retried_after_a_newer_run_has_begun_stops(config: RunConfig, base: str) -> None:
    old = begin_run(base, config, "one")
    new = begin_run(base, changed(config, seed=77), "two", "one")
    with pytest.raises(RunStateError, match=r"Workflow 'two' in namespace 'team-a' \(.*\) is at work under the same"):
        run_step(old, "generate", 0)
    assert noted(base)["root"] == new.root
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
    begun = begin_run(base, config, "one")
    copy = str(shutil.copytree(begun.root, tmp_path / Path(begun.root).name))
    before = noted(base)
    with running.renewed(running.open_base(base), copy):
        pass
    with pytest.raises(RunStateError, match="has this base root, and not"):
        finish(run_at(copy), BAD_END, None)
    assert noted(base) == before


def test_of_two_that_start_together_one_trains(world, bucket):
    assert begin_in_bucket(world, bucket, "one").store.root == f"{bucket}/runs/one"
    with pytest.raises(RunStateError, match=r"running\.json: job 'one' \(.*/runs/one\) is at work"):
        begin_in_bucket(world, bucket, "two")
    assert begin_in_bucket(world, bucket, "one").store.root == f"{bucket}/runs/one"  # the same job, retried


def test_many_that_start_together_have_one_winner(world, bucket):
    from concurrent.futures import ThreadPoolExecutor

    def start(number: int) -> str:
        try:
            return str(begin_in_bucket(world, bucket, f"job-{number}").store.root)
        except RunStateError:
            return ""

    with ThreadPoolExecutor(8) as pool:
        roots = list(pool.map(start, range(8)))
    assert len([root for root in roots if root]) == 1


def test_a_run_whose_workflow_has_ended_is_resumed_by_the_next(world, bucket):
    begun = begin_in_bucket(world, bucket, "one", "workflow-1")
    run_at(begun.store.root, begun.config, begun.origin)
    with pytest.raises(RunStateError, match="Workflow 'workflow-1' in namespace 'team-a'"):
        begin_in_bucket(world, bucket, "two", "workflow-2", lambda other: other.name != "workflow-1")
    again = begin_in_bucket(world, bucket, "two", "workflow-2", lambda other: other.name == "workflow-1")
    assert (again.store.root, again.config) == (begun.store.root, None)


def test_a_claim_that_nobody_renews_grows_stale(world, bucket, monkeypatch):
    begin_in_bucket(world, bucket, "one")
    monkeypatch.setattr(running, "STALE_SECONDS", 0.0)
    assert begin_in_bucket(world, bucket, "two").store.root == f"{bucket}/runs/two"


def test_a_step_of_the_run_renews_its_claim_and_one_of_a_copy_elsewhere_does_not(world, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "RENEW_SECONDS", 0.05)
    begun, base = begin_in_bucket(world, bucket, "one"), open_store(bucket)
    seen = {noted(bucket)["renewed"]}

    def renewals() -> int:
        seen.add(noted(bucket)["renewed"])
        return len(seen) - 1

    with running.renewed(base, begun.store.root):
        until("a second renewal", lambda: renewals() >= 2, 30, 0.01)
    before = noted(bucket)
    with running.renewed(base, str(tmp_path / "one")):
        pass
    assert noted(bucket) == before
