"""How the outcome of a run reads: the same tables and sentences on the terminal, in Markdown and in HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from steerlm_core.observe.text import interval, number, outcome
from steerlm_core.report.run_view import RunView

_STEERING_COLUMNS = ("spearman_measured", "spearman_predicted", "mae_measured", "mae_predicted")
# A rank correlation that the attribute model sees and the measured raters do not.
_FOOLED_BY = 0.2


class Done(Protocol):
    """A committed iteration, as `RunView` and `RunData` have it."""

    @property
    def number(self) -> int:
        """From 0."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """Evaluation and commit, merged."""


def iteration_rows(iterations: Sequence[Done]) -> list[list[str]]:
    """Return the iteration table, a row for every committed iteration; see `ITERATION_COLUMNS`."""
    return [
        [
            str(done.number),
            interval(done.fields.get("distance_before")),
            interval(done.fields.get("distance_after")),
            number(done.fields.get("ess_median"), 1),
            number(done.fields.get("retained_mass"), 2),
            f"{number(done.fields.get('truncation_before'))} → {number(done.fields.get('truncation_after'))}",
            outcome(done.fields),
        ]
        for done in iterations
    ]


ITERATION_COLUMNS = ("iteration", "distance before", "after", "ESS", "retained mass", "truncated", "outcome")
STEERING_COLUMNS = ("attribute", "Spearman, measured", "predicted", "mean error, measured", "predicted")


def steering_rows(steering: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return the steering table, a row for every attribute; see `STEERING_COLUMNS`."""
    return [[name, *(number(row.get(key)) for key in _STEERING_COLUMNS)] for name, row in steering.items()]


def fresh_distance(confirmation: Mapping[str, Any]) -> str:
    """Return the distance on fresh candidates, in a sentence."""
    ess = number(confirmation.get("ess_median"), 1)
    return f"On fresh candidates: distance {interval(confirmation['distance'])} nats, median ESS {ess}."


def fooled(steering: Mapping[str, Mapping[str, float]]) -> str:
    """Return a warning about attributes whose steering the attribute model sees and the measured raters do not."""

    def gap(row: Mapping[str, float]) -> float:
        seen, real = (row.get(f"spearman_{judge}", math.nan) for judge in ("predicted", "measured"))
        return seen - real

    names = ", ".join(name for name, row in steering.items() if gap(row) > _FOOLED_BY)
    return f"The attribute model may be fooled about {names}: the measured raters see less steering." if names else ""


def reason(view: RunView) -> str:
    """Return why the loop stands where it does, in a sentence."""
    if view.decision:
        return str(view.decision["reason"])
    if not view.committed:
        return "No iteration has been committed yet."
    last, allowed = str(view.committed[-1].fields["reason"]), view.config.max_iterations
    if len(view.committed) >= allowed:
        return f"{last} It was the last of the {allowed} iterations allowed; raise max_iterations to go on."
    return f"The loop has not stopped by its own decision. {last}"
