"""`steerlm inspect`: one group, down to its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlm_core import layout
from steerlm_core.attributes import format_label
from steerlm_core.commands.run import Root
from steerlm_core.errors import DataError

if TYPE_CHECKING:
    from steerlm_core.report.run_view import RunView

Row = dict[str, Any]

_TABLES: tuple[layout.StageOutput, ...] = ("groups", "candidates", "labels", "prior_scores")
_COLUMNS = (
    "candidate",
    "tokens",
    "finish",
    "valid",
    "log P(a|x,y)",
    "log P(y|x)",
    "log Q'",
    "ws",
    "predicted",
    "measured",
)


class Split(StrEnum):
    """The two splits of the prompt set."""

    TRAIN = "train"
    HELD_OUT = "held_out"


def inspect(
    root: Root,
    iteration: Annotated[int, typer.Option(min=0, help="The iteration.")] = 0,
    group: Annotated[
        str | None, typer.Option(help="Id of the group, or its beginning.", show_default="the split's first")
    ] = None,
    split: Annotated[Split, typer.Option(help="Split that the group is looked for in.")] = Split.HELD_OUT,
) -> None:
    """Show one group: prompt, target, and every candidate with its tokens, logQ, weight and levels."""
    from transformers import AutoTokenizer

    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.report.run_view import RunView
    from steerlm_core.run import open_run

    view = RunView(open_run(root))
    weighed, candidates = read_group(view, iteration, group or "", split.value)
    tokenizer = AutoTokenizer.from_pretrained(view.policy_folder(None))
    prompt_ids = candidates[0]["policy_prompt_ids"]
    print_text(f"group {weighed['group_id']} · {split.value} · iteration {iteration}", style="bold")
    print_text(
        f"target   {format_label(dict(weighed['target']))}\nESS      {weighed['ess']:.2f} of {sum(weighed['valid'])}"
    )
    print_text(f"prompt   ({len(prompt_ids)} tokens, masked in the loss)\n{tokenizer.decode(prompt_ids)}")
    names = view.config.attribute_names
    print_table(_COLUMNS, [_numbers(row, weighed, place, names) for place, row in enumerate(candidates)])
    for row in candidates:
        print_text(f"candidate {row['index']}: {row['text']}", style="bold")
        print_text(_tokens(row, tokenizer))


def read_group(view: RunView, iteration: int, group: str, split: str) -> tuple[Row, list[Row]]:
    """Return a group's row of GROUPS and its candidates, with label and prior score in each.

    Raises:
        RunStateError: The iteration has not been weighed.
        DataError: No group, or more than one, begins with `group`.
    """
    stage = layout.iteration(iteration)
    parts = [view.manifest(layout.stage_output(stage, name)).of_split(split) for name in _TABLES]
    ids: list[str] = []
    found: list[tuple[Row, list[Row]]] = []
    for tables in zip(*parts, strict=True):
        groups, candidates, labels, scores = (view.store.read_table(part).to_pylist() for part in tables)
        merged = [{**c, **label, **score} for c, label, score in zip(candidates, labels, scores, strict=True)]
        ids += [row["group_id"] for row in groups]
        found += [
            (row, [each for each in merged if each["group_id"] == row["group_id"]])
            for row in groups
            if row["group_id"].startswith(group)
        ]
    if len(found) == 1 or (found and not group):
        return found[0]
    problem = "no group" if not found else f"{len(found)} groups"
    raise DataError(
        f"--group: {problem} of split {split} begin with '{group}'. Groups: {', '.join(ids[:8])}, … ({len(ids)})."
    )


def _numbers(row: Row, weighed: Row, place: int, names: Sequence[str]) -> list[str]:
    return [
        str(row["index"]),
        str(len(row["response_ids"])),
        str(row["finish_reason"]),
        "yes" if weighed["valid"][place] else "no",
        f"{row['log_p_attr']:.2f}",
        f"{row['log_p_prior']:.2f}",
        f"{row['log_q']:.2f}",
        f"{math.exp(weighed['log_ws'][place]):.3f}",
        _levels(row["predicted"], names),
        _levels(row["measured"], names),
    ]


def _levels(levels: Sequence[float], names: Sequence[str]) -> str:
    return " ".join(f"{name} {level:.1f}" for name, level in zip(names, levels, strict=True) if not math.isnan(level))


def _tokens(row: Row, tokenizer: Any) -> str:
    """Return every response token with its logQ."""
    texts = (repr(tokenizer.decode([token]))[1:-1] for token in row["response_ids"])
    return "  ".join(f"{text} {log_q:.2f}" for text, log_q in zip(texts, row["token_log_q"], strict=True))
