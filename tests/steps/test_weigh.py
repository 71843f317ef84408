"""Weights: the formula over the candidates that count, and what the manifest says of them."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from steerlm_core.errors import DataError
from tests.steps.world import World, by_group
from tests.toy.world import CANDIDATES


def _expected_weights(world: World) -> dict[str, list[float]]:
    """log_ws by group from the three tables, by the formula, over the candidates that count."""
    columns = ("candidates", "labels", "prior_scores")
    rows = zip(*(world.rows(f"iterations/000/{name}") for name in columns), strict=True)
    joined = [{**candidate, **label, **score} for candidate, label, score in rows]
    keep = world.opened.config.generate.truncated == "keep"
    weights = {}
    for name, group in by_group(joined):
        logs = np.array([row["log_p_attr"] + row["log_p_prior"] - row["log_q"] for row in group])
        logs[[not keep and row["finish_reason"] == "length" for row in group]] = -np.inf
        few = np.isfinite(logs).sum() < 2
        weights[name] = [-math.inf] * len(logs) if few else list(logs - np.log(np.exp(logs).sum()))
    return weights


@pytest.mark.parametrize("which", ["keeping", "dropping"])
def test_weights_are_the_formula_over_the_candidates_that_count(which, request):
    world = request.getfixturevalue(which)
    expected = _expected_weights(world)
    groups = world.rows("iterations/000/groups")
    assert {group["group_id"] for group in groups} == expected.keys()
    for group in groups:
        assert group["log_ws"] == pytest.approx(expected[group["group_id"]], abs=1e-9)
        weights = np.exp(group["log_ws"])
        assert group["ess"] == pytest.approx(1 / (weights**2).sum() if weights.any() else 0)


def test_keep_counts_every_candidate(keeping):
    groups = keeping.rows("iterations/000/groups")
    assert any(any(group["truncated"]) for group in groups)
    assert all(all(group["valid"]) and group["complete"] for group in groups)
    assert keeping.manifest("iterations/000/groups").metrics["groups_dropped"] == 0


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


def test_the_manifest_says_how_the_weights_spread_over_the_groups(keeping):
    groups, found = keeping.rows("iterations/000/groups"), keeping.manifest("iterations/000/groups").metrics
    largest = [float(np.exp(np.max(group["log_ws"]))) for group in groups]
    prior = [float(np.std(group["log_p_prior"])) for group in groups]
    for name, values in (("max_ws", largest), ("spread_log_p_prior", prior)):
        wanted = [min(values), *np.percentile(values, [5, 25, 50, 75, 95]), max(values)]
        assert found["quantiles"][name] == pytest.approx(wanted)
        assert found[f"{name}_median"] == pytest.approx(np.median(values))


def test_a_run_in_which_every_group_is_dropped_is_refused(dropping, tmp_path):
    world = World(Path(shutil.copytree(dropping.root, tmp_path / "run")))
    world.undo("groups", "labels", "prior_scores", "model", "evaluation")
    world.tamper("iterations/000/candidates", lambda row: row.update(finish_reason="length"))
    with pytest.raises(DataError, match=r"every group was dropped.*truncated: keep"):
        world.run("label", "score_prior", "weigh")
    assert not (world.root / "iterations/000/groups/manifest.json").exists()
