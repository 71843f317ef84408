"""The end of a retraining: what is good enough, and what somebody else has promoted meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core import layout
from steerlm_core.retrain import promotion
from steerlm_core.retrain.finish import finish, judge
from steerlm_core.store import open_store
from steerlm_core.store.local import LocalObjects
from steerlm_core.store.sealed import seal
from tests.retrain.base import noted
from tests.runs import run_at


@pytest.mark.parametrize(("losses", "promoted"), [(1, True), (2, False)])
def test_a_promotion_that_was_overtaken_at_the_last_moment_is_tried_again(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: int, promoted: bool
) -> None:
    store = open_store(str(retrained))
    root = store.document(layout.FINISHED)["root"]
    run = run_at(root)
    store.delete([layout.PROMOTED, layout.FINISHED])
    store.put(layout.RUNNING, seal({**noted(str(retrained)), "job": "one", "root": root}))
    create, lost = LocalObjects.create, [False] * losses

    def losing(self: LocalObjects, key: str, data: bytes) -> bool:
        return lost.pop() if key == layout.PROMOTED and lost else create(self, key, data)

    monkeypatch.setattr(LocalObjects, "create", losing)
    good_end = {"kind": "converged", "best_iteration": 0}
    if promoted:
        assert finish(run, good_end, None)[0]
    else:
        with pytest.raises(promotion.ChangedMeanwhileError, match="look again, and repeat"):
            finish(run, good_end, None)
    assert (promotion.promoted(store) is not None) == promoted
    assert store.exists(layout.FINISHED) == promoted
    finish(run, good_end, None)


@pytest.mark.parametrize(
    ("kind", "best", "distance", "error", "good", "because"),
    [
        ("converged", 2, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), True, "Promoted: distance -0.100"),
        ("plateau", 2, (0.01, -0.2, 0.2), (0.0, -0.1, 0.1), False, "its fresh distance is larger"),
        ("plateau", 2, (-0.1, -0.2, 0.0), (0.2, 0.1, 0.3), False, "its steering error is surely larger"),
        ("regressed", 0, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), False, "the run ended regressed"),
        ("uninformative", 0, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), False, "the run ended uninformative"),
        ("max_iterations", None, (-0.1, -0.2, 0.0), (0.0, -0.1, 0.1), False, "the run ended max_iterations"),
    ],
)
def test_what_is_good_enough(kind, best, distance, error, good, because):
    def rise(values: tuple[float, float, float]) -> dict[str, float]:
        return dict(zip(("mean", "low", "high"), values, strict=True))

    comparison = {"distance": rise(distance), "steering_error": rise(error)}
    promoted, words = judge({"kind": kind, "best_iteration": best}, comparison)
    assert promoted == good
    assert because in words
