"""Candidates: how many are drawn, what they depend on, and that the sampler is the model."""

import math
from typing import Any

import pytest

import steerlm_core.steps.generate as generate_module
from steerlm_core import layout
from steerlm_core.config import parse_config
from steerlm_core.errors import CaptureError
from steerlm_core.runtime import prepare
from steerlm_core.store.sealed import seal
from tests.runs import run_at
from tests.steps.world import World, by_group
from tests.toy.world import CANDIDATES


def test_candidates_count_their_tokens_and_their_drift(keeping):
    found, rows = keeping.manifest("iterations/000/candidates").metrics, keeping.rows("iterations/000/candidates")
    assert sum(found["drift_histogram"]["counts"]) == len(rows)
    for split, tokens in found["response_tokens"].items():
        assert tokens == sum(len(row["response_ids"]) for row in rows if row["split"] == split) > 0


def test_held_out_groups_draw_until_n_are_complete_up_to_twice_n(dropping):
    draws, short = set(), 0
    for _, rows in by_group(dropping.rows("iterations/000/candidates", "held_out")):
        complete = sum(row["finish_reason"] == "stop" for row in rows)
        draws.add(len(rows))
        short += complete < CANDIDATES
        assert [row["index"] for row in rows] == list(range(len(rows)))
        assert complete == CANDIDATES or (complete < CANDIDATES and len(rows) == 2 * CANDIDATES)
    assert min(draws) < 2 * CANDIDATES
    assert max(draws) > CANDIDATES
    assert short
    for _, rows in by_group(dropping.rows("iterations/000/candidates", "train")):
        assert len(rows) == CANDIDATES


def test_keep_draws_no_more_than_n(keeping):
    for split in ("held_out", "train"):
        for _, rows in by_group(keeping.rows("iterations/000/candidates", split)):
            assert len(rows) == CANDIDATES


def test_a_candidate_does_not_depend_on_the_size_of_parts_and_batches(keeping, toy, tmp_path):
    raw = toy.model_dump(mode="json")
    raw["prompts"]["prompts_per_part"], raw["generate"]["batch"] = 3, 7
    other = World(tmp_path / "run")
    run = run_at(other.root, parse_config(raw, "toy"))
    prepare(run)
    other.run("generate")
    mine, theirs = (world.rows("iterations/000/candidates") for world in (other, keeping))
    assert len(other.manifest("prompts").parts) > len(keeping.manifest("prompts").parts)
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


def test_iterations_do_not_share_draws_even_of_one_policy(world):
    key = world.root / layout.commit(0)
    key.write_bytes(seal({**world.json(layout.commit(0)), "accepted": False}))
    world.undo("candidates", iteration=1)
    world.run("generate", iteration=1)
    first, second = (
        [row["response_ids"] for row in world.rows(f"iterations/{number:03d}/candidates")] for number in range(2)
    )
    assert sum(a != b for a, b in zip(first, second, strict=True)) > len(first) / 4
