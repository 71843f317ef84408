"""The plan of a step: every response once, within the budget, in equal passes."""

from __future__ import annotations

from typing import Any

import pytest

from steerlm_core.models.packing import row_tokens
from steerlm_core.training.plan import plan_step
from tests.distributed.world import large_groups, token_groups


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("layout", ["shared_prefix", "padded"])
def test_plan_has_every_response_once_within_budget_and_equal_passes(world_size: int, layout: Any) -> None:
    groups = token_groups(7, seed=3) + large_groups(3, seed=4)
    plans = plan_step(groups, world_size, 64, layout)
    assert len({(len(plan.scored), len(plan.whole), len(plan.parts)) for plan in plans}) == 1
    passes = [item for plan in plans for item in plan.whole + plan.parts]
    seen = sorted(
        (piece.position, index) for item in passes for piece in item for index in range(piece.start, piece.stop)
    )
    assert seen == [(position, index) for position, group in enumerate(groups) for index in range(len(group.responses))]
    for item in passes:
        assert sum(row_tokens(piece.of(groups[piece.position]), layout) for piece in item) <= 64
    assert all(plan.scored == plan.parts for plan in plans)
