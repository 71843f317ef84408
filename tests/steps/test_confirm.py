"""Confirmation: candidates that no decision has seen."""

from steerlm_core import layout
from steerlm_core.observe.events import EventLog
from steerlm_core.steps import confirm


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
