"""Does the method work? Three seeds, three arms, fresh held-out samples. Run by `make test-method`."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console
from rich.table import Table

from steerlm_core.config import RunConfig, load_config, parse_config
from tests.method.arms import Arm, run_arms

pytestmark = [pytest.mark.method, pytest.mark.timeout(3000)]

SEEDS = (1, 2, 3)
CONFIG = Path(__file__).parents[2] / "examples" / "demo.yaml"


def config_of(seed: int) -> RunConfig:
    """The demo's configuration with a seed of its own; it stops later, at a distance nearer to none."""
    demo = load_config(CONFIG).model_dump(mode="json")
    stop = {**demo["convergence"], "tolerance": 0.1}
    return parse_config({**demo, "seed": seed, "max_iterations": 7, "convergence": stop}, str(CONFIG))


def run_seed(seed: int, root: Path) -> tuple[dict[str, Arm], str]:
    """Run all arms of one seed; returns them and why the loop stopped."""
    found, outcome = run_arms(config_of(seed), root)
    return found, str(outcome["reason"])


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Arm]]:
    """Every arm of every seed, two seeds at a time; prints them all."""
    roots = [tmp_path_factory.mktemp(f"seed-{seed}") for seed in SEEDS]
    found = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for seed, (by_name, reason) in zip(SEEDS, pool.map(run_seed, SEEDS, roots), strict=True):
            found[seed] = by_name
            print(f"\nseed {seed}: {reason}", flush=True)
    _print(found)
    return found


def _print(found: dict[int, dict[str, Arm]]) -> None:
    attributes = list(next(iter(found[SEEDS[0]].values())).steering)
    table = Table("seed", "arm", "tokens", "fresh distance", "ESS", *(f"{name}\nρ, MAE" for name in attributes))
    for seed, by_name in found.items():
        for arm in by_name.values():
            d = arm.distance
            steering = (arm.steering[name] for name in attributes)
            table.add_row(
                str(seed),
                arm.name,
                f"{arm.tokens:,}",
                f"{d['mean']:.3f} [{d['low']:.3f}, {d['high']:.3f}]",
                f"{arm.ess:.2f}",
                *(f"{row['spearman_measured']:.2f}, {row['mae_measured']:.2f}" for row in steering),
            )
    Console(width=150).print(table)


def test_the_fresh_distance_falls_to_two_fifths(arms: dict[int, dict[str, Arm]]) -> None:
    ratios = [by_name["v2"].distance["mean"] / by_name["policy 0"].distance["mean"] for by_name in arms.values()]
    assert median(ratios) <= 0.4, ratios


@pytest.mark.parametrize("seed", SEEDS)
def test_v2_is_nearer_to_the_target_than_v1_trained_on(arms: dict[int, dict[str, Arm]], seed: int) -> None:
    assert arms[seed]["v2"].distance["mean"] < arms[seed]["v1 trained on"].distance["low"]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_attribute_follows_what_is_asked(arms: dict[int, dict[str, Arm]], seed: int) -> None:
    for name, row in arms[seed]["v2"].steering.items():
        assert row["spearman_measured"] >= 0.8, (name, row)
