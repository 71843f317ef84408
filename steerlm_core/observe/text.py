"""How numbers and outcomes of a run read, the same in every place that shows them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

_KINDS = {
    "regressed": "not accepted",
    "uninformative": "uninformative",
    "converged": "converged",
    "plateau": "plateau",
    "max_iterations": "last iteration",
    "continue": "goes on",
}


def duration(seconds: float) -> str:
    """Return `0.4 s`, `12 s`, `3:05` or `1:02:05`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def size(count: float) -> str:
    """Return `512 bytes`, `1.2 MB` or `34 GB`."""
    if count < 1000:
        return f"{count:.0f} bytes"
    power = min(3, int(math.log(count * 1.0005, 1000)))
    count, unit = count / 1000**power, ("kB", "MB", "GB")[power - 1]
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"


def rate(per_second: float, unit: str) -> str:
    """Return `1.2 groups/s`, `350 tokens/s`, or `4.0 s a group` where a second is too short."""
    if per_second >= 1:
        return f"{per_second:.0f} {unit}/s" if per_second >= 100 else f"{per_second:.1f} {unit}/s"
    return f"{1 / per_second:.1f} s per {unit.removesuffix('s')}" if per_second > 0 else ""


def interval(value: Mapping[str, Any] | None) -> str:
    """Return `0.122 [0.101, 0.145]` of a mean with its bounds; a dash where there is none."""
    if not value or value.get("mean") is None:
        return "–"
    return f"{float(value['mean']):.3f} [{float(value['low']):.3f}, {float(value['high']):.3f}]"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many digits; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def outcome(commit: Mapping[str, Any]) -> str:
    """Return what became of an iteration, in two words."""
    kind = str(commit.get("kind", ""))
    if kind == "max_iterations" and not commit.get("accepted", True):
        return "not accepted, last iteration"
    return _KINDS.get(kind, kind)


def iteration_line(iteration: int, fields: Mapping[str, Any]) -> str:
    """Return the line of a finished iteration, and its reason below it.

    Args:
        iteration: Its number.
        fields: Its evaluation and its commit, merged.
    """
    distance = f"distance {interval(fields.get('distance_before'))} → {interval(fields.get('distance_after'))}"
    count = fields.get("n_candidates")
    weights = f"ESS {number(fields.get('ess_median'), 1)}" + (f" of {count}" if count else "")
    return f"iteration {iteration}   {distance}   {weights}   {outcome(fields)}\n    {fields.get('reason', '')}"


def printable(text: str) -> str:
    """Return text that may be shown on a terminal: control characters of a model's output are spelt out."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else repr(c)[1:-1] for c in text)
