"""`steerlm generate`: responses of a run's policy at the levels that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from steerlm_core import layout
from steerlm_core.attributes import Target, format_label, parse_label
from steerlm_core.commands.run import Root
from steerlm_core.config import RunConfig
from steerlm_core.errors import ConfigError

if TYPE_CHECKING:
    from steerlm_core.commands.steered import Answer
    from steerlm_core.report.run_view import RunView

_SWEPT = 8  # responses at each level of the table: one alone says little


def generate(
    root: Root,
    prompt: Annotated[
        str | None, typer.Argument(help="Default: the first held-out prompt.", show_default=False)
    ] = None,
    attributes: Annotated[str, typer.Option(help="Levels, as in verbosity:0,mood:4.", show_default=False)] = "",
    iteration: Annotated[str, typer.Option(help=f"best, {layout.POLICY_0}, or the number of an iteration.")] = "best",
    candidates: Annotated[int, typer.Option(min=1, help="Responses; in the table, 8 at least, averaged.")] = 1,
) -> None:
    """Steer the result. Without a prompt or levels: a table of one prompt at each level of one attribute."""
    from steerlm_core.commands.steered import SteeredPolicy
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.report.run_view import RunView
    from steerlm_core.run import open_run

    view = RunView(open_run(root))
    given = parse_label(attributes, view.config.attributes, "--attributes") if attributes else {}
    targets = targets_asked(given, view.config, sweep=prompt is None or not given)
    policy = SteeredPolicy(view.policy_folder(_policy(view.best, iteration)), view.config)
    text = prompt if prompt is not None else _first_held_out(view)
    if prompt is not None and given:
        for answer in policy.answer(text, targets, candidates):
            print_text(answer.text)
            print_text(f"[{format_label(answer.target)}]  measured: {_levels(answer.measured)}", style="dim")
        return
    count = max(candidates, _SWEPT)
    answers = policy.answer(text, targets, count)
    groups = [answers[start : start + count] for start in range(0, len(answers), count)]
    rows = [[format_label(group[0].target), group[0].text, _levels(_mean(group))] for group in groups]
    print_table(("target", "one response", f"measured, mean of {count}"), rows, title=text)


def targets_asked(given: Target, config: RunConfig, sweep: bool) -> Sequence[Target]:
    """Return the targets to generate at: the given one, or each level of the first attribute that it leaves open.

    What stays open is filled with the middle level where the run's targets name every attribute: a policy has
    never seen a shorter label then.
    """
    middle = {spec.name: (spec.low + spec.high) // 2 for spec in config.attributes}
    free = [spec for spec in config.attributes if spec.name not in given]
    fill = middle if sweep or config.prompts.targets == "uniform" else {}
    base = {name: given.get(name, fill.get(name)) for name in config.attribute_names}
    levels = [{free[0].name: level} for level in free[0].levels] if sweep and free else [{}]
    return [{name: level for name, level in {**base, **each}.items() if level is not None} for each in levels]


def _policy(best: int | None, asked: str) -> int | None:
    """Return the iteration whose policy is asked for; None: policy 0."""
    if asked == "best":
        return best
    if asked == layout.POLICY_0:
        return None
    if not asked.isdigit():
        raise ConfigError(f"--iteration: '{asked}' is none of: best, {layout.POLICY_0}, the number of an iteration.")
    return int(asked)


def _first_held_out(view: RunView) -> str:
    part = view.manifest(layout.PROMPTS).of_split("held_out")[0]
    return str(view.store.read_table(part)["prompt"][0])


def _mean(answers: Sequence[Answer]) -> dict[str, float]:
    return {name: sum(answer.measured[name] for answer in answers) / len(answers) for name in answers[0].measured}


def _levels(measured: dict[str, float]) -> str:
    return ", ".join(f"{name} {level:.1f}" for name, level in measured.items()) or "no rater"
