"""The steps on the toy world: what they write, what they refuse, and that nothing is done twice."""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import steerlm_core.steps.generate as generate_module
from steerlm_core import layout
from steerlm_core.config import GenerateConfig, RunConfig, parse_config
from steerlm_core.errors import CaptureError, DataError, ForeignOutputError, RunStateError
from steerlm_core.observe.events import EventLog
from steerlm_core.run import Run
from steerlm_core.runtime import prepare, run_step
from steerlm_core.steps import confirm, decide
from steerlm_core.steps.drift import Drift, histogram, judge
from steerlm_core.steps.output import Output
from steerlm_core.store import open_store
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.manifest import Manifest
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal
from tests.runs import loop_at, run_at
from tests.toy.world import CANDIDATES, build, small

Change = Callable[[dict[str, Any]], None]


@dataclass
class World:
    """A run root, and what a test does to it."""

    root: Path

    @property
    def opened(self) -> Run:
        return run_at(self.root)

    def run(self, *steps: str, iteration: int = 0) -> dict[str, Any]:
        run = self.opened
        return [run_step(run, step, iteration) for step in steps][-1]

    def manifest(self, prefix: str) -> Manifest:
        return Manifest.model_validate(self.json(f"{prefix}/manifest.json"))

    def rows(self, prefix: str, split: str = "") -> list[dict[str, Any]]:
        parts = [part for part in self.manifest(prefix).parts if split in ("", part.split)]
        return [row for part in parts for row in open_store(str(self.root)).read_table(part).to_pylist()]

    def json(self, key: str) -> dict[str, Any]:
        return open_store(str(self.root)).document(key)

    def undo(self, *outputs: str, iteration: int = 0) -> None:
        """Forget an iteration's outputs, and the commit that rests on them."""
        for name in outputs:
            shutil.rmtree(self.root / f"iterations/{iteration:03d}" / name)
        (self.root / layout.commit(iteration)).unlink(missing_ok=True)

    def tamper(self, prefix: str, change: Change) -> None:
        """Rewrite every row of an output, under a manifest that looks as if the step had written it."""
        store, manifest, parts = open_store(str(self.root)), self.manifest(prefix), []
        for number, part in enumerate(manifest.parts):
            table = store.read_table(part)
            rows = table.to_pylist()
            for row in rows:
                change(row)
            changed = pa.Table.from_pylist(rows, table.schema)
            parts.append(store.write_table(prefix, number, changed, part.split))
        changed_manifest = manifest.model_copy(update={"parts": parts})
        store.put(f"{prefix}/manifest.json", seal(changed_manifest.model_dump(mode="json")))

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file of the run with its size and the time of its last change; but not who was at it."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        found = ((path, path.stat()) for path in files if path.parent.name != "leases" and path.name != ".lock")
        return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found}


def _loop(root: Path, config: RunConfig | None = None, iterations: int | None = None) -> dict[str, Any]:
    return loop_at(root, config, iterations)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return small(build(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> World:
    """Two iterations that keep cut responses; not to be changed."""
    world = World(tmp_path_factory.mktemp("keep") / "run")
    _loop(world.root, config)
    return world


@pytest.fixture
def world(finished, tmp_path) -> World:
    """The same, to be changed."""
    return World(Path(shutil.copytree(finished.root, tmp_path / "run")))


@pytest.fixture(scope="module")
def dropping(config, tmp_path_factory) -> World:
    """One iteration that drops cut responses, of which it has many; not to be changed."""
    world = World(tmp_path_factory.mktemp("drop") / "run")
    world_config = small(config, truncated="drop", max_new_tokens=2)
    prompts = world_config.prompts.model_copy(update={"train": 32, "held_out": 32})  # so that some groups stay short
    _loop(world.root, world_config.model_copy(update={"prompts": prompts}), 1)
    return world


def _groups(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    return ((name, list(some)) for name, some in groupby(rows, key=lambda row: row["group_id"]))


# -------------------------------------------------------------------------------------------------------- weigh


def _expected_weights(world: World) -> dict[str, list[float]]:
    """log_ws by group from the three tables, by the formula, over the candidates that count."""
    columns = ("candidates", "labels", "prior_scores")
    rows = zip(*(world.rows(f"iterations/000/{name}") for name in columns), strict=True)
    joined = [{**candidate, **label, **score} for candidate, label, score in rows]
    keep = world.opened.config.generate.truncated == "keep"
    weights = {}
    for name, group in _groups(joined):
        logs = np.array([row["log_p_attr"] + row["log_p_prior"] - row["log_q"] for row in group])
        logs[[not keep and row["finish_reason"] == "length" for row in group]] = -np.inf
        few = np.isfinite(logs).sum() < 2
        weights[name] = [-math.inf] * len(logs) if few else list(logs - np.log(np.exp(logs).sum()))
    return weights


@pytest.mark.parametrize("which", ["finished", "dropping"])
def test_weights_are_the_formula_over_the_candidates_that_count(which, request):
    world = request.getfixturevalue(which)
    expected = _expected_weights(world)
    groups = world.rows("iterations/000/groups")
    assert {group["group_id"] for group in groups} == expected.keys()
    for group in groups:
        assert group["log_ws"] == pytest.approx(expected[group["group_id"]], abs=1e-9)
        weights = np.exp(group["log_ws"])
        assert group["ess"] == pytest.approx(1 / (weights**2).sum() if weights.any() else 0)


def test_keep_counts_every_candidate(finished):
    groups = finished.rows("iterations/000/groups")
    assert any(any(group["truncated"]) for group in groups)
    assert all(all(group["valid"]) and group["complete"] for group in groups)
    assert finished.manifest("iterations/000/groups").metrics["groups_dropped"] == 0


def test_drop_counts_complete_candidates_only(dropping):
    for group in dropping.rows("iterations/000/groups"):
        assert group["valid"] == [not cut for cut in group["truncated"]]
        assert group["complete"] == (sum(group["valid"]) >= CANDIDATES)


def test_a_group_with_fewer_than_two_valid_candidates_stays_without_weights(dropping):
    groups = dropping.rows("iterations/000/groups")
    short = [group for group in groups if sum(group["valid"]) < 2]
    assert short
    for group in short:
        assert set(group["log_ws"]) == {-math.inf}
        assert (group["ess"], group["complete"]) == (0, False)
    metrics = dropping.manifest("iterations/000/groups").metrics
    assert (metrics["groups"], metrics["groups_dropped"]) == (len(groups) - len(short), len(short))


def test_the_manifest_says_how_the_weights_spread_over_the_groups(finished):
    groups, found = finished.rows("iterations/000/groups"), finished.manifest("iterations/000/groups").metrics
    largest = [float(np.exp(np.max(group["log_ws"]))) for group in groups]
    prior = [float(np.std(group["log_p_prior"])) for group in groups]
    for name, values in (("max_ws", largest), ("spread_log_p_prior", prior)):
        wanted = [min(values), *np.percentile(values, [5, 25, 50, 75, 95]), max(values)]
        assert found["quantiles"][name] == pytest.approx(wanted)
        assert found[f"{name}_median"] == pytest.approx(np.median(values))


def test_candidates_count_their_tokens_and_their_drift(finished):
    found, rows = finished.manifest("iterations/000/candidates").metrics, finished.rows("iterations/000/candidates")
    assert sum(found["drift_histogram"]["counts"]) == len(rows)
    for split, tokens in found["response_tokens"].items():
        assert tokens == sum(len(row["response_ids"]) for row in rows if row["split"] == split) > 0


def test_a_manifest_names_what_its_output_was_made_from(finished):
    groups = finished.manifest("iterations/000/groups")
    assert groups.inputs == {
        name: finished.manifest(f"iterations/000/{name}").content_digest
        for name in ("candidates", "labels", "prior_scores")
    }


def test_a_run_in_which_every_group_is_dropped_is_refused(dropping, tmp_path):
    world = World(Path(shutil.copytree(dropping.root, tmp_path / "run")))
    world.undo("groups", "labels", "prior_scores", "model", "evaluation")
    world.tamper("iterations/000/candidates", lambda row: row.update(finish_reason="length"))
    with pytest.raises(DataError, match=r"every group was dropped.*truncated: keep"):
        world.run("label", "score_prior", "weigh")
    assert not (world.root / "iterations/000/groups/manifest.json").exists()


# ----------------------------------------------------------------------------------------------------- generate


def test_held_out_groups_draw_until_n_are_complete_up_to_twice_n(dropping):
    draws, short = set(), 0
    for _, rows in _groups(dropping.rows("iterations/000/candidates", "held_out")):
        complete = sum(row["finish_reason"] == "stop" for row in rows)
        draws.add(len(rows))
        short += complete < CANDIDATES
        assert [row["index"] for row in rows] == list(range(len(rows)))
        assert complete == CANDIDATES or (complete < CANDIDATES and len(rows) == 2 * CANDIDATES)
    assert min(draws) < 2 * CANDIDATES
    assert max(draws) > CANDIDATES
    assert short
    for _, rows in _groups(dropping.rows("iterations/000/candidates", "train")):
        assert len(rows) == CANDIDATES


def test_keep_draws_no_more_than_n(finished):
    for split in ("held_out", "train"):
        for _, rows in _groups(finished.rows("iterations/000/candidates", split)):
            assert len(rows) == CANDIDATES


def test_groups_short_of_n_stay_out_of_the_distance_and_are_counted(dropping):
    measured = dropping.rows("iterations/000/evaluation")
    complete = {g["group_id"] for g in dropping.rows("iterations/000/groups", "held_out") if g["complete"]}
    assert {row["group_id"] for row in measured if row["complete"]} == complete
    assert all(math.isnan(row["distance_after"]) != row["complete"] for row in measured)
    summary = dropping.json("iterations/000/evaluation/evaluation.json")
    assert (summary["groups"], summary["groups_left_out"]) == (len(complete), len(measured) - len(complete))


def test_a_candidate_does_not_depend_on_the_size_of_parts_and_batches(finished, config, tmp_path):
    raw = config.model_dump(mode="json")
    raw["prompts"]["prompts_per_part"], raw["generate"]["batch"] = 3, 7
    other = World(tmp_path / "run")
    run = run_at(other.root, parse_config(raw, "toy"))
    prepare(run)
    other.run("generate")
    mine, theirs = (world.rows("iterations/000/candidates") for world in (other, finished))
    assert len(other.manifest("prompts").parts) > len(finished.manifest("prompts").parts)
    for key in ("group_id", "index", "response_ids", "finish_reason"):
        assert [row[key] for row in mine] == [row[key] for row in theirs]


@pytest.mark.parametrize("wrong", [0.1, math.nan])
def test_a_sampler_that_is_not_the_model_is_refused(world, monkeypatch, wrong):
    honest = generate_module.sample

    def off(*arguments: Any) -> Any:
        samples = honest(*arguments)
        for each in samples:
            each.log_q = [log_q + wrong for log_q in each.log_q]
        return samples

    world.undo("candidates")
    monkeypatch.setattr(generate_module, "sample", off)
    with pytest.raises(CaptureError, match=r"sampler's log-probs differ.*worst: group \w+, candidate \d"):
        world.run("generate")
    assert not (world.root / "iterations/000/candidates/manifest.json").exists()


def test_the_drift_gate_judges_tokens_and_sequences_and_names_the_worst():
    limits = GenerateConfig(max_drifted_share=0.5)
    one, other = Drift(), Drift()
    one.add("a", 0, [-1.0, -1.0], [-1.0, -1.0])
    other.add("b", 3, [-1.0, -1.0], [-1.02, -1.0])
    assert judge([one.sums(), other.sums()], limits) == pytest.approx(
        {"drift_token": (3 + math.exp(0.02)) / 4, "drift_far_share": 0, "drift_worst": 0.02}
    )
    drifted = histogram([one.sums(), other.sums()])
    bars = dict(zip(drifted["edges"], drifted["counts"], strict=False))  # a count ends at its edge
    assert {edge: count for edge, count in bars.items() if count} == {1e-8: 1, 0.1: 1}
    far = Drift()
    for group, off in (("a", 0.0), ("b", 0.02), ("c", 0.02)):  # 60 tokens, 1.2 nats: little a token, much in all
        far.add(group, 1, [-1.0] * 60, [-1.0 - off] * 60)
    with pytest.raises(CaptureError, match=r"66\.67% of the sequences"):
        judge([far.sums()], limits)
    undefined = Drift()
    for group, scored in (("a", -1.0), ("b", math.nan), ("c", -1.0)):
        undefined.add(group, 0, [-1.0], [scored])
    with pytest.raises(CaptureError, match="worst: group b, candidate 0"):
        judge([one.sums(), undefined.sums()], limits)


# ------------------------------------------------------------------------------------------- nothing twice, ours only


def test_a_second_run_of_every_step_does_nothing(world):
    before = world.files()
    for iteration in range(2):
        world.run(*layout.ITERATION_STEPS, iteration=iteration)
    assert world.files() == before


CHANGES = {
    "generate": ("generate", "temperature", 0.9),
    "label": ("label", "beta_concentration", 13.0),
    "score_prior": ("models", "dtype", "bfloat16"),
    "weigh": ("generate", "candidates", 3),
    "train": ("train", "learning_rate", 2e-3),
    "evaluate": ("convergence", "confidence", 0.8),
}


@pytest.mark.parametrize(("step", "change"), CHANGES.items(), ids=CHANGES)
def test_changed_settings_are_refused(world, step, change):
    section, key, value = change
    raw = world.opened.config.model_dump(mode="json")
    raw[section][key] = value
    run = replace(world.opened, config=parse_config(raw, "toy"))
    before = world.files()
    with pytest.raises(ForeignOutputError, match=rf"output of '{step}' was made from other inputs or settings"):
        run_step(run, step, 0)
    assert world.files() == before


def test_settings_of_how_the_work_is_done_may_change(world):
    raw = world.opened.config.model_dump(mode="json")
    raw["max_iterations"], raw["runtime"]["threads"] = 9, 2
    raw["train"] |= {"checkpoint_seconds": 1.0, "token_budget": 512}
    run = replace(world.opened, config=parse_config(raw, "toy"))
    before = world.files()
    run_step(run, "train", 0)
    assert world.files() == before


@pytest.mark.parametrize("step", [name for name in layout.ITERATION_STEPS if name != "decide"])
def test_the_manifest_of_another_run_is_refused(world, step):
    run = replace(world.opened, described={**world.opened.described, "run_id": "other-run"})
    with pytest.raises(RunStateError, match=rf"belongs to run '{world.opened.run_id}', this is run 'other-run'"):
        run_step(run, step, 0)


def test_a_manifest_that_is_damaged_or_missing_is_named(world):
    path = world.root / "iterations/000/labels/manifest.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunStateError, match=r"labels/manifest\.json: damaged"):
        world.run("weigh")
    path.unlink()
    with pytest.raises(RunStateError, match=r"labels/manifest\.json: missing.*steerlm resume"):
        world.run("weigh")


# -------------------------------------------------------------------------------------------------- step-0 oracle


def _shift(*columns: str) -> Change:
    def change(row: dict[str, Any]) -> None:
        for column in columns:
            row[column] += 1.5 if row["index"] == 2 else 0.0

    return change


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("log_q",), r"log_q is .*, log_p_start is"),
        (("log_q", "log_p_start"), r"does not repeat the stored log-probs.*Worst: group \w+, valid candidate 2"),
    ],
    ids=["log_q alone", "both"],
)
def test_candidates_that_were_tampered_with_fail_the_oracle(world, columns, said):
    world.undo("labels", "prior_scores", "groups", "model", "evaluation")
    world.tamper("iterations/000/candidates", _shift(*columns))
    world.run("label", "score_prior", "weigh")
    with pytest.raises(CaptureError, match=said):
        world.run("train")
    assert not (world.root / "iterations/000/model/manifest.json").exists()


# ------------------------------------------------------------------------------------------------- decide and gate


class Late(RunStore):
    """The store of a runner that looked for the commit before the winner wrote it."""

    def exists(self, key: str) -> bool:
        return not key.endswith("commit.json") and super().exists(key)


def _decide_late(world: World) -> dict[str, Any]:
    with EventLog("test", None).step("decide") as events:
        context = world.opened.context(events, 0)
        return decide.run(replace(context, store=Late(LocalObjects(world.root))))


def test_the_loser_of_a_race_with_another_result_names_the_winner(world):
    key = world.root / layout.commit(0)
    winner = {**world.json(layout.commit(0)), "reason": "the winner's reason"}
    key.write_bytes(seal(winner))
    with pytest.raises(RunStateError, match=r"committed this iteration first.*\(the winner's reason\)"):
        _decide_late(world)
    assert world.json(layout.commit(0)) == winner


def test_the_loser_of_a_race_with_the_same_result_goes_on(world):
    commit = world.json(layout.commit(0))
    assert _decide_late(world) == commit
    assert world.json(layout.commit(0)) == commit


def test_the_gate_wants_the_commit_before(world):
    gate = world.opened.gate
    assert [gate(0, 2), gate(1, 2), gate(2, 3), gate(2, 2)] == ["run", "run", "run", "stop"]
    with pytest.raises(RunStateError, match="iteration 2 has no commit, so iteration 3 cannot start"):
        gate(3, 4)
    (world.root / layout.DECISION).write_text("{}")
    assert [gate(0, 2), gate(3, 4)] == ["stop", "stop"]


def test_an_iteration_samples_from_the_last_accepted_policy(world):
    with EventLog("test", None).step("decide") as events:
        context = world.opened.context(events)
    key = world.root / layout.commit(1)
    for accepted, policy in ((True, "iterations/001/model"), (False, "iterations/000/model")):
        key.write_bytes(seal({**world.json(layout.commit(1)), "accepted": accepted}))
        assert decide.best_policy(context, 2) == policy
    assert decide.best_policy(context, 0) == layout.policy_model(None)


def test_a_decision_is_written_when_the_loop_has_stopped_and_only_then(world):
    assert not (world.root / layout.DECISION).exists()
    key = world.root / layout.commit(1)
    stop = {**world.json(layout.commit(1)), "stop": True}
    key.write_bytes(seal(stop))
    assert world.run("decide", iteration=1) == stop
    assert world.json(layout.DECISION) == stop


# ---------------------------------------------------------------------------------------------- confirm and resume


def test_confirmation_uses_candidates_that_no_decision_has_seen(world):
    """Both stages sample the same held-out pairs from the same policy; only the draws differ."""
    best = world.json(layout.commit(1))["best_iteration"]
    (confirmed,) = (world.root / "confirmation").iterdir()
    assert confirmed.name == f"iteration-{best:03d}"
    with EventLog("test", None).step("confirm") as events:
        confirm.run(world.opened.context(events).at(confirm.stage_of(None)))

    def drawn(prefix: str) -> dict[tuple[str, int], list[int]]:
        rows = world.rows(f"{prefix}/candidates", "held_out")
        return {(row["group_id"], row["index"]): row["response_ids"] for row in rows}

    first, fresh = drawn("iterations/000"), drawn("confirmation/policy-0")
    assert first.keys() == fresh.keys()
    assert sum(first[key] != fresh[key] for key in first) > len(first) / 4
    assert {row["split"] for row in world.rows("confirmation/policy-0/candidates")} == {"held_out"}


def test_iterations_do_not_share_draws_even_of_one_policy(world):
    key = world.root / layout.commit(0)
    key.write_bytes(seal({**world.json(layout.commit(0)), "accepted": False}))
    world.undo("candidates", iteration=1)
    world.run("generate", iteration=1)
    first, second = (
        [row["response_ids"] for row in world.rows(f"iterations/{number:03d}/candidates")] for number in range(2)
    )
    assert sum(a != b for a, b in zip(first, second, strict=True)) > len(first) / 4


def test_a_loop_that_dies_before_every_commit_ends_as_if_it_had_not(finished, config, tmp_path, monkeypatch):
    died: set[str] = set()
    honest = Output.commit

    def dies_once(self: Output, **metrics: Any) -> Manifest:
        if self.prefix not in died:
            died.add(self.prefix)
            raise KeyboardInterrupt  # the parts are written, the manifest is not
        return honest(self, **metrics)

    monkeypatch.setattr(Output, "commit", dies_once)
    mine = World(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        _loop(mine.root, config)
    for _ in range(50):
        with suppress(KeyboardInterrupt):  # of dies_once
            _loop(mine.root)
            break
    assert len(died) >= 20
    for iteration in range(2):
        for key in (f"iterations/{iteration:03d}/evaluation/evaluation.json", layout.commit(iteration)):
            assert mine.json(key) == finished.json(key)
    (ours,), (theirs,) = (list((each.root / "confirmation").glob("*/confirmation.json")) for each in (mine, finished))
    assert ours.read_bytes() == theirs.read_bytes()
