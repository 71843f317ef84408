"""The same weights for every number of processes, ZeRO stage and micro-batch, full and LoRA; the table is printed.

After 5 steps at learning rate 1e-3: ||w - w64|| / ||w64 - w0||, w64 from one process in float64 without DeepSpeed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from steerlm_core.training.run import train
from tests.distributed.world import change, large_groups, make_job, make_policy, token_groups, write_groups

BOUNDS = {"sgd": 1e-4, "adamw": 1e-2}
LORA = {"rank": 2, "alpha": 16.0}
# 5 steps of 5 groups of 60 tokens; 5 groups do not divide evenly among 2 or 4 ranks.
COMMON = {"batch_groups": 5, "learning_rate": 1e-3, "clip_norm": 25.0}
MICRO_BATCHES = {1: 64, 4: 256}  # groups in a pass, and the token budget that holds them
VARIANTS: dict[str, dict[str, Any]] = {
    "groups of all sizes": {"part": "uneven"},
    "two passes": {"part": "large"},
    # Its gradient is a fiftieth of the others': SGD would move it by little more than float32 rounds.
    "tied weights, AdamW": {"part": "tied", "policy": "tied", "optimizer": "adamw"},
    "activations recomputed": {"part": "uneven", "activation_checkpointing": True},
    "optimizer offloaded": {"part": "uneven", "offload_optimizer": True},
    "padded rows": {"part": "uneven", "layout": "padded"},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All rows, of one torchrun for each number of processes."""
    folder = tmp_path_factory.mktemp("table")
    policy, tied = make_policy(folder / "policy"), make_policy(folder / "tied", seed=3, tied=True)
    write_groups(folder / "even.parquet", policy, token_groups(25, fixed=True))
    write_groups(folder / "uneven.parquet", policy, token_groups(11, seed=5))  # the last batch is one group
    write_groups(folder / "large.parquet", policy, [*token_groups(5, seed=6), *large_groups(3)])
    write_groups(folder / "tied.parquet", tied, token_groups(11, seed=5))
    combinations = [*_grid(), *_variants()]
    for name, settings, model, part in _references(combinations):
        train(make_job(folder / name, folder / model, folder / part, **settings))
    (folder / "combinations.json").write_text(json.dumps(combinations))
    return [row for world in (1, 2, 4) for row in _torchrun(world, folder)]


def _grid() -> list[dict[str, Any]]:
    """The combinations of the table, and the planted fault."""
    found = []
    for stage, lora, micro, optimizer in product((0, 1, 2, 3), ("full", "lora"), MICRO_BATCHES, BOUNDS):
        settings = {"zero_stage": stage, "optimizer": optimizer, "lora": LORA if lora == "lora" else None}
        settings["token_budget"] = MICRO_BATCHES[micro]
        name = f"zero{stage}-{lora}-{micro}-{optimizer}"
        found.append(_combination(name, "policy", "even", [1, 2, 4], None, **settings))
    fault = "per-rank normalisation"
    settings = {"zero_stage": 2, "optimizer": "sgd", "lora": None, "token_budget": 256}
    return [*found, _combination(f"planted {fault}", "policy", "even", [2, 4], fault, **settings)]


def _variants() -> list[dict[str, Any]]:
    found = []
    for label, variant in VARIANTS.items():
        settings = {"optimizer": "sgd", "token_budget": 64, "lora": None, **variant}
        part, policy = settings.pop("part"), settings.pop("policy", "policy")
        worlds = [4] if label == "groups of all sizes" else [2]
        stages = (1, 2, 3) if "offload_optimizer" in variant else (0, 1, 2, 3)
        found += [
            _combination(f"{label}, zero {stage}", policy, part, worlds, None, zero_stage=stage, **settings)
            for stage in stages
        ]
    return found


def _combination(
    name: str, policy: str, part: str, worlds: list[int], planted: str | None, **settings: Any
) -> dict[str, Any]:
    reference = f"reference-{part}-{settings['optimizer']}-{'lora' if settings['lora'] else 'full'}"
    return {
        "name": name, "policy": policy, "part": f"{part}.parquet", "worlds": worlds, "planted": planted,
        "reference": f"{reference}/model", "settings": {**COMMON, "engine": "deepspeed", **settings},
    }  # fmt: skip


def _references(combinations: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], str, str]]:
    kept = ("optimizer", "lora", *COMMON)
    found = {}
    for one in combinations:
        settings = {key: one["settings"][key] for key in kept} | {"dtype": "float64", "token_budget": 4096}
        found[one["reference"]] = (str(Path(one["reference"]).parent), settings, one["policy"], one["part"])
    return list(found.values())


def _torchrun(world: int, folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    done = subprocess.run([*command, "-m", "tests.distributed.table", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    rows: list[dict[str, Any]] = json.loads((folder / f"rows-{world}.json").read_text())
    return rows


def _show(table: list[dict[str, Any]]) -> str:
    """The table for people: one line a job, one column an optimizer."""
    lines = ["", "processes  ZeRO  weights  micro-batch       SGD     AdamW      (bounds 1e-4, 1e-2)"]
    grid = {(row["world"], row["name"]): row["change"] for row in table}
    for world in (1, 2, 4):
        for stage in (0, 1, 2, 3):
            for lora in ("full", "lora"):
                for micro in MICRO_BATCHES:
                    sgd, adamw = (grid[world, f"zero{stage}-{lora}-{micro}-{optimizer}"] for optimizer in BOUNDS)
                    lines.append(f"{world:9}  {stage:4}  {lora:7}  {micro:11}  {sgd:8.1e}  {adamw:8.1e}")
    lines.append("variants and planted fault, SGD unless said")
    others = [row for row in table if not row["name"].startswith("zero")]
    lines += [f"{row['world']:9}  {row['name']:40} {row['change']:8.1e}" for row in others]
    return "\n".join(lines)


def test_weights_agree_with_float64_for_every_combination(
    table: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(_show(table))
    right = [row for row in table if not row["planted"]]
    assert len(right) == 3 * 32 + 23
    for row in right:
        assert row["change"] <= BOUNDS[row["settings"]["optimizer"]], row["name"]


def test_planted_per_rank_normalisation_fails_the_check(table: list[dict[str, Any]]) -> None:
    planted = [row for row in table if row["planted"]]
    assert [row["world"] for row in planted] == [2, 4]
    for row in planted:
        assert row["change"] > 100 * BOUNDS[row["settings"]["optimizer"]], row


def test_the_measure_is_the_one_that_is_asked_for() -> None:
    import torch

    start, reference = {"a": torch.zeros(2)}, {"a": torch.tensor([3.0, 4.0])}
    assert change({"a": torch.tensor([3.0, 4.5])}, reference, start) == pytest.approx(0.1)
    assert change(start, reference, start) == pytest.approx(1.0)


def test_clipping_is_active_in_the_table(table: list[dict[str, Any]]) -> None:
    """Else a wrong norm over ranks would not show."""
    assert max(row["grad_norm"] for row in table if row["name"].startswith("zero")) > COMMON["clip_norm"]
