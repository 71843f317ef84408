"""The history of a training run: every step counts once, however often the run was taken up again."""

import json

import pytest

from steerlm_core.training.history import History


def _numbers(step: int) -> dict[str, float]:
    return {"loss": float(step), "distance": step / 2, "ess": 4.0, "grad_norm": 1.0, "learning_rate": 1 / (step + 1)}


def _after(steps: int, interrupted: int | None = None) -> History:
    history = History()
    for step in range(steps):
        if step == interrupted:
            history = History(**json.loads(json.dumps(history.state())))
        history.add(_numbers(step), tokens=10)
    return history


def test_a_short_run_keeps_every_step():
    metrics = _after(3).metrics()
    assert metrics["tokens"] == 30
    assert metrics["curve"]["stride"] == 1
    assert metrics["curve"]["loss"] == [0, 1, 2]
    assert metrics["curve"]["learning_rate"] == [1, 1 / 2, 1 / 3]


@pytest.mark.parametrize("steps", [399, 400, 1601, 5003])
def test_a_long_run_keeps_the_mean_of_every_stride(steps):
    curve = _after(steps).metrics()["curve"]
    assert len(curve["loss"]) <= 400
    stride = curve["stride"]
    for place, value in enumerate(curve["loss"]):
        covered = range(place * stride, min((place + 1) * stride, steps))
        assert value == pytest.approx(sum(covered) / len(covered))
    assert (len(curve["loss"]) - 1) * stride < steps <= len(curve["loss"]) * stride


def test_an_interrupted_run_has_the_same_history():
    assert _after(1003, interrupted=777).metrics() == _after(1003).metrics()
