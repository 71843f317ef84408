"""A run in Markdown: what came out, whether to trust it, why it stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from steerlm_core.observe.run_view import RunView
from steerlm_core.observe.text import duration, interval, number, outcome

_STEERING_COLUMNS = ("spearman_measured", "spearman_predicted", "mae_measured", "mae_predicted")
# A rank correlation that the attribute model sees and the measured raters do not.
_FOOLED_BY = 0.2


def write_report(root: str, path: Path) -> None:
    """Write the report of a run to a file.

    Raises:
        RunStateError: There is no run at the root.
    """
    view = RunView(root)
    sections = [_heading(view), _iterations(view), _confirmation(view), _times(view), _config(view)]
    path.write_text("\n\n".join(filter(None, sections)) + "\n")


def iteration_rows(view: RunView) -> list[list[str]]:
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
        for done in view.committed
    ]


ITERATION_COLUMNS = ("iteration", "distance before", "after", "ESS", "retained mass", "truncated", "outcome")
STEERING_COLUMNS = ("attribute", "Spearman, measured", "predicted", "mean error, measured", "predicted")


def steering_rows(steering: dict[str, dict[str, float]]) -> list[list[str]]:
    """Return the steering table, a row for every attribute; see `STEERING_COLUMNS`."""
    return [[name, *(number(row.get(key)) for key in _STEERING_COLUMNS)] for name, row in steering.items()]


def fresh_distance(confirmation: dict[str, Any]) -> str:
    """Return the distance on fresh candidates, in a sentence."""
    ess = number(confirmation.get("ess_median"), 1)
    return f"On fresh candidates: distance {interval(confirmation['distance'])} nats, median ESS {ess}."


def fooled(steering: dict[str, dict[str, float]]) -> str:
    """Return a warning about attributes whose steering the attribute model sees and the measured raters do not."""

    def gap(row: dict[str, float]) -> float:
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
    return f"The loop has not stopped by its own decision. {view.committed[-1].fields['reason']}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def steering_section(confirmation: dict[str, Any]) -> str:
    """Return fresh distance and steering of a confirmed policy, in Markdown."""
    steering = confirmation["steering"]
    paragraphs = [
        fresh_distance(confirmation),
        markdown_table(STEERING_COLUMNS, steering_rows(steering)),
        fooled(steering),
    ]
    return "\n\n".join(filter(None, paragraphs))


def _heading(view: RunView) -> str:
    best = "policy 0" if view.best is None else f"iteration {view.best}"
    return f"# {view.config.name}\n\nRun `{view.run_id}`. {reason(view)} The best policy is {best}."


def _iterations(view: RunView) -> str:
    table = markdown_table(ITERATION_COLUMNS, iteration_rows(view))
    lines = [f"- {done.number}: {done.fields['reason']}" for done in view.committed]
    return f"## Iterations\n\n{table}\n\n" + "\n".join(lines) if view.committed else ""


def _confirmation(view: RunView) -> str:
    return f"## Confirmation\n\n{steering_section(view.confirmation)}" if view.confirmation else ""


def _times(view: RunView) -> str:
    rows = [
        ["" if iteration is None else str(iteration), step, duration(seconds)]
        for (iteration, step), seconds in view.seconds.items()
    ]
    return f"## Time\n\n{markdown_table(('iteration', 'step', 'time'), rows)}" if rows else ""


def _config(view: RunView) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in view.described.get("versions", {}).items())
    text = yaml.safe_dump(view.config.model_dump(mode="json"), sort_keys=False)
    return f"## Configuration\n\n{versions}\n\n```yaml\n{text}```"
