"""A run in Markdown: what came out, whether to trust it, why it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from steerlm_core.observe.text import duration
from steerlm_core.report.run_view import RunView
from steerlm_core.report.words import (
    ITERATION_COLUMNS,
    STEERING_COLUMNS,
    fooled,
    fresh_distance,
    iteration_rows,
    reason,
    steering_rows,
)
from steerlm_core.run import Run


def write_markdown(run: Run, path: Path) -> None:
    """Write the summary of a run to a file, in Markdown."""
    view = RunView(run)
    sections = [_heading(view), _iterations(view), _confirmation(view), _times(view), _config(view)]
    path.write_text("\n\n".join(filter(None, sections)) + "\n")


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
    table = markdown_table(ITERATION_COLUMNS, iteration_rows(view.committed))
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
