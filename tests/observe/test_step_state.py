"""The state of a step: its rate, and the time that is left."""

from steerlm_core.observe.events import Event
from steerlm_core.observe.step_state import StepState


def test_the_estimate_starts_anew_with_a_new_unit():
    state = StepState("prepare", None, started=0.0)
    for at, done, total, unit in ((10.0, 10, 10, "texts"), (20.0, 0, 100, "passes"), (30.0, 50, 100, "passes")):
        state.progress(
            Event("progress", at, "run-1", None, "prepare", None, {"done": done, "total": total, "unit": unit})
        )
    assert state.text == "50/100 passes · 5.0 passes/s · 10 s left"
