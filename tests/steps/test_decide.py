"""Decision and gate: one commit an iteration, and what follows from it."""

from dataclasses import replace
from typing import Any

import pytest

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.observe.events import EventLog
from steerlm_core.steps import decide
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.run_store import RunStore
from steerlm_core.store.sealed import seal
from tests.steps.world import World


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
