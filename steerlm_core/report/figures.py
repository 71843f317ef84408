"""The figures of a report: plain numbers in, inline SVG out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from steerlm_core.observe.text import interval
from steerlm_core.report.svg import (
    Scale,
    legend,
    line,
    number,
    picture,
    polyline,
    rect,
    tag,
    text,
    value_axis,
)

WIDTH = 720.0
LEFT, RIGHT = 62.0, 12.0
SERIES = 8
"""Colours there are for lines and bars; more than so many begin again."""


@dataclass(frozen=True)
class Point:
    """A mean with its interval, at one place of the horizontal axis; None where there is none."""

    place: str
    value: Mapping[str, float] | None
    hollow: bool = False


def points_chart(series: Mapping[str, Sequence[Point]], limit: tuple[str, float] | None, unit: str) -> Markup:
    """Draw series of means with intervals side by side, over places that they share.

    Args:
        series: By name; every series has the same places in the same order.
        limit: A level to compare with, named.
        unit: What the values are.
    """
    places = [point.place for point in next(iter(series.values()))]
    known = [point.value for points in series.values() for point in points if point.value]
    top = max([*(float(value["high"]) for value in known), limit[1] if limit else 0.0, 1e-6]) * 1.08
    parts, plot_top = series_legend(series)
    bottom, right = plot_top + 250.0, WIDTH - (100.0 if limit else RIGHT)
    y = Scale(0.0, top, bottom, plot_top)
    column = (right - LEFT) / len(places)
    parts += [*value_axis(y, LEFT, right), line(LEFT, bottom, right, bottom, "axis")]
    if limit:
        parts += [line(LEFT, y(limit[1]), right, y(limit[1]), "limit")]
        parts += [text(right + 6, y(limit[1]) + 4, f"{limit[0]} {number(limit[1])}", "note", "start")]
    for place, name in enumerate(places):
        if place % -(-len(places) // 8) == 0:  # a label every so often, where there are many
            parts.append(text(LEFT + column * (place + 0.5), bottom + 20, name, "label"))
    for which, (name, points) in enumerate(series.items()):
        centres = [LEFT + column * (place + 0.5 + _shift(series, name, place)) for place in range(len(points))]
        parts += _line_through(points, centres, y, which)
        for x, point in zip(centres, points, strict=True):
            parts += _mean(x, point, y, which)
    return picture(WIDTH, bottom + 38.0, _points_in_words(series, unit), parts)


def series_legend(names: Iterable[str], left: float = LEFT) -> tuple[list[Markup], float]:
    """The series' names, and where the plot below them begins."""
    parts, last = legend([(f"mark s{place % SERIES}", name) for place, name in enumerate(names)], left, 18.0, WIDTH)
    return parts, last + 16.0


def _shift(series: Mapping[str, Sequence[Point]], name: str, place: int) -> float:
    """How far, in columns, a series stands beside the middle: those that have a value here share the room."""
    here = [other for other, points in series.items() if points[place].value]
    return (here.index(name) - (len(here) - 1) / 2) * min(0.16, 0.7 / len(here)) if name in here else 0.0


def _line_through(points: Sequence[Point], centres: Sequence[float], y: Scale, which: int) -> list[Markup]:
    places = [(x, y(float(p.value["mean"]))) for x, p in zip(centres, points, strict=True) if p.value]
    return [polyline(places, f"path thin s{which % SERIES}")] if len(places) > 1 else []


def _mean(x: float, point: Point, y: Scale, which: int) -> list[Markup]:
    if not point.value:
        return []
    low, mean, high = (y(float(point.value[key])) for key in ("low", "mean", "high"))
    class_ = f"mark s{which % SERIES}" + (" hollow" if point.hollow else "")
    whiskers = [line(x, low, x, high, f"path s{which % SERIES}")]
    whiskers += [line(x - 4, at, x + 4, at, f"path s{which % SERIES}") for at in (low, high)]
    return [*whiskers, tag("circle", cx=x, cy=mean, r=5, class_=class_)]


def _points_in_words(series: Mapping[str, Sequence[Point]], unit: str) -> str:
    told = [
        f"{name}: " + ", ".join(f"{p.place} {interval(p.value)}" for p in points if p.value)
        for name, points in series.items()
    ]
    return f"Means with intervals, in {unit}. " + "; ".join(told)


def heatmap(counts: Sequence[Sequence[int]], low: int, title: str) -> Markup:
    """Draw how the found levels spread for each requested one: a column is requested, its cells sum to 100%.

    Args:
        counts: `[requested, found]`.
        low: The lowest level.
        title: Whose levels they are.
    """
    levels, cell, left, top = len(counts), 34.0, 44.0, 26.0
    parts: list[Markup] = [text(2, 14, title, "label strong", "start")]
    bottom = top + cell * levels
    for column, found in enumerate(counts):
        parts.append(text(left + cell * (column + 0.5), bottom + 18, low + column))
        for row, count in enumerate(found):
            parts += _cell(left + cell * column, bottom - cell * (row + 1), cell, count, sum(found), row == column)
    parts += [text(left - 8, bottom - cell * (row + 0.5) + 4, low + row, anchor="end") for row in range(levels)]
    middle = bottom - cell * levels / 2
    parts.append(text(left + cell * levels / 2, bottom + 36, "requested", "label"))
    parts.append(
        tag("text", "found", x=12, y=middle, class_="label", text_anchor="middle", transform=f"rotate(-90 12 {middle})")
    )
    return picture(left + cell * levels + 8, bottom + 44, f"{title}. {_heat_in_words(counts, low)}", parts)


def _cell(x: float, y: float, size: float, count: int, total: int, wanted: bool) -> list[Markup]:
    """One cell; what was asked for has a frame, and the column of a level that nobody asked for is empty."""
    parts = [rect(x + 1, y + 1, size - 2, size - 2, "cell" if total else "empty")]
    if count:
        parts.append(rect(x + 1, y + 1, size - 2, size - 2, "heat", fill_opacity=f"{count / total:.3f}"))
    if wanted:
        parts.append(rect(x + 2, y + 2, size - 4, size - 4, "wanted"))
    if count:
        share = count / total
        words = f"{share:.0%}" if share >= 0.01 else "<1%"
        parts.append(text(x + size / 2, y + size / 2 + 4, words, "value"))
    return parts


def _heat_in_words(counts: Sequence[Sequence[int]], low: int) -> str:
    told = []
    for column, found in enumerate(counts):
        if sum(found):
            mean = sum((low + row) * count for row, count in enumerate(found)) / sum(found)
            told.append(f"requested {low + column}: mean {mean:.2f}, {found[column] / sum(found):.0%} as requested")
    return "; ".join(told)


def judged(steering: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the judges that have a say in a steering table, measured first."""
    return [judge for judge in ("measured", "predicted") if any(f"mae_{judge}" in row for row in steering.values())]
