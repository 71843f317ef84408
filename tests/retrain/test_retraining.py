"""Runs that follow each other on a real S3 server: nothing new, resumed, promoted, rolled back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from steerlm_core.errors import RunStateError
from steerlm_core.retrain import promotion
from steerlm_core.store import open_store
from tests.retrain.base import config_file, noted, runs_in


@pytest.mark.long
def test_retraining_from_the_first_model_to_a_rollback(toy, world, bucket, tmp_path, said):
    """A first run, one on the same data, one on new prompts, one that only makes it worse; then back."""
    config = config_file(world, tmp_path)
    assert "Promoted: the run ended" in said("retrain", config, bucket)
    base = open_store(bucket)
    first = promotion.promoted(base)
    assert first is not None
    runs = {found.key.split("/")[1] for found in base.listing("runs/")}
    assert first["root"] == f"{bucket}/runs/{runs.pop()}"
    assert noted(bucket)["job"] == ""

    assert "Nothing new: the last finished run" in said("retrain", config, bucket)
    assert {found.key.split("/")[1] for found in base.listing("runs/")} == {first["root"].rsplit("/", 1)[1]}

    lines = Path(toy.prompts.source).read_text().splitlines()
    (tmp_path / "new.jsonl").write_text("\n".join(reversed(lines[:100])) + "\n")
    words = said("retrain", config_file(world, tmp_path, source=str(tmp_path / "new.jsonl")), bucket)
    assert f"from the promoted model of run '{first['run_id']}'" in words
    second = next(root for root in runs_in(bucket) if root != first["root"])
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
