"""The step-0 oracle: training starts from what was sampled, or not at all."""

from typing import Any

import pytest

from steerlm_core.errors import CaptureError
from tests.steps.world import Change


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
