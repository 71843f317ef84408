"""What a run prints when it has ended."""

from __future__ import annotations

from typing import Any

from steerlm_core import layout
from steerlm_core.attributes import format_label
from steerlm_core.commands.tables import print_table, print_text
from steerlm_core.config import RunConfig
from steerlm_core.observe.text import duration
from steerlm_core.report.run_view import RunView
from steerlm_core.report.words import STEERING_COLUMNS, fooled, fresh_distance, reason, steering_rows
from steerlm_core.run import Run


def print_summary(run: Run, outcome: dict[str, Any] | None, seconds: float) -> None:
    """Print why the run ended, how good its result is, where things are, and what to type next.

    Args:
        run: The run.
        outcome: How the loop ended; None: as the root says.
        seconds: How long the command worked.
    """
    view, root = RunView(run), run.root
    print_text(f"\n{outcome['reason'] if outcome else reason(view)}", style="bold")
    best = "policy 0: no iteration was accepted" if view.best is None else f"iteration {view.best}"
    print_text(f"Best policy: {best}.")
    if view.confirmation:
        print_confirmation(view.confirmation)
    print_text(f"\nModel   {root}/{layout.policy_model(view.best)}\nRun     {root}\nTime    {duration(seconds)}")
    prompt = f'steerlm generate {root} --attributes {_example_target(view.config)} "your prompt"'
    following = [prompt, f"steerlm report {root}", f"steerlm export {root} DIRECTORY", view.how_to_go_on]
    print_text("\nNext    " + "\n        ".join(filter(None, following)))


def print_confirmation(confirmation: dict[str, Any]) -> None:
    """Print fresh distance and steering of the best policy."""
    print_text(f"\n{fresh_distance(confirmation)}")
    print_table(STEERING_COLUMNS, steering_rows(confirmation["steering"]))
    if warning := fooled(confirmation["steering"]):
        print_text(warning, style="yellow")


def _example_target(config: RunConfig) -> str:
    ends = [spec.low if number % 2 == 0 else spec.high for number, spec in enumerate(config.attributes)]
    return format_label(dict(zip(config.attribute_names, ends, strict=True)))
