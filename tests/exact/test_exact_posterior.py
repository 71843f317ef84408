"""The real steps on a world whose posterior is known: the true KL falls, and the distance tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerlm_core.steering import spearman
from steerlm_core.steps.prompt_set import draw_pairs, read_prompts
from tests.runs import loop_at
from tests.toy.world import Posterior, build

pytestmark = pytest.mark.long
PAIRS = 32  # held-out pairs over which the KL is computed


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Exact KL and distances of a whole run, by iteration; the KL of policy 0 stands first."""
    folder = tmp_path_factory.mktemp("toy")
    config = build(folder)
    pairs = [pair for pair in draw_pairs(read_prompts(config)[0], config) if pair.split == "held_out"][:PAIRS]
    posterior = Posterior(config, pairs)
    root = folder / "run"
    loop_at(root, config)
    course: dict[str, list[float]] = {"kl": [posterior.kl(folder / "prior")], "before": [], "after": []}
    for iteration in sorted((root / "iterations").iterdir()):
        evaluation = json.loads((iteration / "evaluation" / "evaluation.json").read_text())
        course["before"].append(evaluation["distance_before"]["mean"])
        course["after"].append(evaluation["distance_after"]["mean"])
        course["kl"].append(posterior.kl(_model(iteration)))
    print({name: [round(value, 4) for value in values] for name, values in course.items()})
    return course


def _model(iteration: Path) -> Path:
    return next((iteration / "model").glob("*/config.json")).parent


def test_the_exact_kl_falls_below_five_percent(course: dict[str, list[float]]) -> None:
    assert course["kl"][-1] < 0.05 * course["kl"][0]


def test_the_distance_follows_the_exact_kl(course: dict[str, list[float]]) -> None:
    assert len(course["after"]) >= 5
    assert spearman(course["kl"][1:], course["after"]) > 0.9
    assert spearman(course["kl"][:-1], course["before"]) > 0.9
