"""Runs that follow each other on a real S3 server: nothing new, resumed, promoted, rolled back; one at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from steerlm_core import layout
from steerlm_core.config import load_config
from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.retrain import promotion, running
from steerlm_core.retrain.begin import begin
from steerlm_core.retrain.finish import judge
from steerlm_core.store import open_store
from steerlm_core.store.sealed import seal
from tests.in_process import Steerlm
from tests.runs import run_at
from tests.toy.world import build, small
from tests.waiting import until

Said = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy world's folder, with its small configuration in config.yaml."""
    folder = tmp_path_factory.mktemp("world")
    raw = small(build(folder)).model_dump(mode="json", exclude_none=True)
    raw |= {"max_iterations": 1, "raters": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    return folder


@pytest.fixture
def said(steerlm: Steerlm) -> Said:
    """What a command that ends well prints."""

    def run(*words: object) -> str:
        ended = steerlm(*words)
        assert ended.code == 0, ended.err
        return ended.out

    return run


def _config(world: Path, tmp_path: Path, **prompts: Any) -> Path:
    raw = yaml.safe_load((world / "config.yaml").read_text())
    raw["prompts"] |= prompts
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def _running(base: str) -> dict[str, Any]:
    return open_store(base).document(layout.RUNNING)


def test_retraining_from_the_first_model_to_a_rollback(world, bucket, tmp_path, said):
    """A first run, one on the same data, one on new prompts, one that only makes it worse; then back."""
    config = _config(world, tmp_path)
    assert "Promoted: the run ended" in said("retrain", config, bucket)
    base = open_store(bucket)
    first = promotion.promoted(base)
    assert first is not None
    runs = {found.key.split("/")[1] for found in base.listing("runs/")}
    assert first["root"] == f"{bucket}/runs/{runs.pop()}"
    assert _running(bucket)["job"] == ""

    assert "Nothing new: the last finished run" in said("retrain", config, bucket)
    assert {found.key.split("/")[1] for found in base.listing("runs/")} == {first["root"].rsplit("/", 1)[1]}

    lines = (world / "prompts.jsonl").read_text().splitlines()
    (tmp_path / "new.jsonl").write_text("\n".join(reversed(lines[:100])) + "\n")
    words = said("retrain", _config(world, tmp_path, source=str(tmp_path / "new.jsonl")), bucket)
    assert f"from the promoted model of run '{first['run_id']}'" in words
    second = next(root for root in _runs(bucket) if root != first["root"])
    started = open_store(second).document("run.json")
    assert started["config"]["models"]["policy"] == first["model"]
    assert started["origin"]["started_from"] == first["content_digest"]
    comparison = open_store(second).document("confirmation/iteration-000/comparison.json")
    promoted = comparison["distance"]["mean"] <= 0 and comparison["steering_error"]["low"] <= 0
    assert ("Promoted: distance" in words) == promoted
    assert ("Not promoted: distance" in words) == (not promoted)
    promotion.promote(base, open_store(second), "for the rest of this test")

    worse = yaml.safe_load((tmp_path / "config.yaml").read_text())
    worse["train"] |= {"learning_rate": 1.0, "clip_norm": 0.0}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(worse))
    assert "Not promoted: " in said("retrain", tmp_path / "config.yaml", bucket)
    assert promotion.promoted(base)["root"] == second

    assert f"In use: {first['model']}" in said("rollback", bucket)
    assert promotion.promoted(base)["content_digest"] == first["content_digest"]
    assert "Rolled back from run" in said("history", bucket)
    with pytest.raises(RunStateError, match="no model before the present one"):
        promotion.rollback(base)
    assert f"In use: {open_store(second).root}" in said("promote", second)


def _runs(bucket: str) -> set[str]:
    return {f"{bucket}/runs/{found.key.split('/')[1]}" for found in open_store(bucket).listing("runs/")}


def _begin(world: Path, bucket: str, job: str, workflow: str = "", ended: running.Ended = lambda _: None) -> Any:
    who = running.Job(job, running.WorkflowName(workflow, "team-a" if workflow else ""))
    return begin(running.open_base(bucket), load_config(world / "config.yaml"), who, ended)


def test_of_two_that_start_together_one_trains(world, bucket):
    assert _begin(world, bucket, "one").store.root == f"{bucket}/runs/one"
    with pytest.raises(RunStateError, match=r"running\.json: job 'one' \(.*/runs/one\) is at work"):
        _begin(world, bucket, "two")
    assert _begin(world, bucket, "one").store.root == f"{bucket}/runs/one"  # the same job, retried


def test_many_that_start_together_have_one_winner(world, bucket):
    from concurrent.futures import ThreadPoolExecutor

    def start(number: int) -> str:
        try:
            return str(_begin(world, bucket, f"job-{number}").store.root)
        except RunStateError:
            return ""

    with ThreadPoolExecutor(8) as pool:
        roots = list(pool.map(start, range(8)))
    assert len([root for root in roots if root]) == 1


def test_a_run_whose_workflow_has_ended_is_resumed_by_the_next(world, bucket):
    begun = _begin(world, bucket, "one", "workflow-1")
    run_at(begun.store.root, begun.config, begun.origin)
    with pytest.raises(RunStateError, match="Workflow 'workflow-1' in namespace 'team-a'"):
        _begin(world, bucket, "two", "workflow-2", lambda other: other.name != "workflow-1")
    again = _begin(world, bucket, "two", "workflow-2", lambda other: other.name == "workflow-1")
    assert (again.store.root, again.config) == (begun.store.root, None)


def test_a_claim_that_nobody_renews_grows_stale(world, bucket, monkeypatch):
    _begin(world, bucket, "one")
    monkeypatch.setattr(running, "STALE_SECONDS", 0.0)
    assert _begin(world, bucket, "two").store.root == f"{bucket}/runs/two"


def test_a_step_of_the_run_renews_its_claim_and_one_of_a_copy_elsewhere_does_not(world, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "RENEW_SECONDS", 0.05)
    begun, base = _begin(world, bucket, "one"), open_store(bucket)
    seen = {_running(bucket)["renewed"]}

    def renewals() -> int:
        seen.add(_running(bucket)["renewed"])
        return len(seen) - 1

    with running.renewed(base, begun.store.root):
        until("a second renewal", lambda: renewals() >= 2, 30, 0.01)
    before = _running(bucket)
    with running.renewed(base, str(tmp_path / "one")):
        pass
    assert _running(bucket) == before


@pytest.mark.parametrize(
    ("kind", "best", "distance", "error", "good", "because"),
    [
        ("converged", 2, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), True, "Promoted: distance -0.100"),
        ("plateau", 2, (0.01, -0.2, 0.2), (0.0, -0.1, 0.1), False, "its fresh distance is larger"),
        ("plateau", 2, (-0.1, -0.2, 0.0), (0.2, 0.1, 0.3), False, "its steering error is surely larger"),
        ("regressed", 0, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), False, "the run ended regressed"),
        ("uninformative", 0, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), False, "the run ended uninformative"),
        ("max_iterations", None, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), False, "the run ended max_iterations"),
    ],
)
def test_what_is_good_enough(kind, best, distance, error, good, because):
    def rise(values: tuple[float, float, float]) -> dict[str, float]:
        return dict(zip(("mean", "low", "high"), values, strict=True))

    comparison = {"distance": rise(distance), "steering_error": rise(error)}
    promoted, words = judge({"kind": kind, "best_iteration": best}, comparison)
    assert promoted == good
    assert because in words


def test_a_model_promoted_meanwhile_stays(world, bucket, tmp_path, said):
    said("retrain", _config(world, tmp_path), bucket)
    base = open_store(bucket)
    (root,) = _runs(bucket)
    base.delete([layout.PROMOTED])
    with pytest.raises(SteerLMError, match="another model has come into use since this run started"):
        promotion.promote(base, open_store(root), "", instead_of="0" * 64)


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
