"""More figures of a report: how numbers spread, how they went over the steps, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from steerlm_core.observe.text import duration
from steerlm_core.report.figures import LEFT, RIGHT, SERIES, WIDTH, series_legend
from steerlm_core.report.svg import Scale, bottom_axis, line, number, picture, polyline, rect, text, value_axis

_MOST_POINTS = 2000


def boxes(
    rows: Sequence[tuple[str, Sequence[float]]], low: float, high: float, unit: str, mark: float | None = None
) -> Markup:
    """Draw box plots below one another: a thin line from the 5% to the 95% quantile, a bar from 25% to 75%.

    Args:
        rows: A name and seven quantiles each: least, 5%, 25%, 50%, 75%, 95%, greatest.
        low: Left end of the axis.
        high: Right end.
        unit: What the values are.
        mark: A value to compare with.
    """
    left, step, top = 120.0, 26.0, 8.0
    bottom = top + step * len(rows)
    x = Scale(low, high, left, WIDTH - 90.0)
    parts = bottom_axis(x, top, bottom)
    if mark is not None:
        parts.append(line(x(mark), top, x(mark), bottom, "limit"))
    for place, (name, quantiles) in enumerate(rows):
        middle = top + step * (place + 0.5)
        _, least, first, median, third, most, _ = quantiles
        parts += [text(left - 12, middle + 4, name, "label", "end"), line(x(least), middle, x(most), middle, "path s0")]
        parts += [rect(x(first), middle - 7, max(x(third) - x(first), 1.0), 14, "box")]
        parts += [line(x(median), middle - 9, x(median), middle + 9, "median")]
        parts += [text(WIDTH - 4, middle + 4, f"{median:.2f}", "value", "end")]
    parts.append(text((left + WIDTH - 90.0) / 2, bottom + 36, unit, "label"))
    told = "; ".join(f"{name}: median {q[3]:.2f}, 5% {q[1]:.2f}, 95% {q[5]:.2f}" for name, q in rows)
    return picture(WIDTH, bottom + 44, f"{unit}. {told}", parts)


def histogram(edges: Sequence[float], series: Mapping[str, Sequence[float]], limit: tuple[str, float]) -> Markup:
    """Draw shares by decade on a logarithmic axis, a colour for each series.

    Args:
        edges: Of the bins, powers of ten.
        series: By name: counts, the first below the first edge, the last above the last.
        limit: A level to compare with, named.
    """
    parts, top = series_legend(series)
    bottom = top + 172.0
    x = Scale(edges[0] / 10, edges[-1] * 10, LEFT, WIDTH - RIGHT, log=True)
    y = Scale(0.0, 1.0, bottom, top)
    parts += [line(LEFT, y(share), WIDTH - RIGHT, y(share), "grid") for share in (0, 0.25, 0.5, 0.75, 1)]
    parts += [text(LEFT - 8, y(share) + 4, f"{share:.0%}", anchor="end") for share in (0, 0.25, 0.5, 0.75, 1)]
    parts += [text(x(edge), bottom + 18, number(edge)) for edge in edges]
    bounds = [edges[0] / 10, *edges, edges[-1] * 10]
    for which, counts in enumerate(series.values()):
        total = sum(counts) or 1.0
        for place, count in enumerate(counts):
            width = (x(bounds[place + 1]) - x(bounds[place]) - 6) / len(series)
            at = x(bounds[place]) + 3 + width * which
            if count:
                height = max(bottom - y(count / total), 1.5)
                parts.append(rect(at, bottom - height, max(width - 1, 1.0), height, f"bar s{which % SERIES}"))
    parts += [
        line(x(limit[1]), top, x(limit[1]), bottom, "limit"),
        text(x(limit[1]) + 5, top + 10, limit[0], "note", "start"),
    ]
    parts.append(text((LEFT + WIDTH) / 2, bottom + 42, "|sum of differences| of a response, nats", "label"))
    return picture(WIDTH, bottom + 52.0, _histogram_in_words(edges, series), parts)


def _histogram_in_words(edges: Sequence[float], series: Mapping[str, Sequence[float]]) -> str:
    told = []
    for name, counts in series.items():
        largest = max((place for place, count in enumerate(counts) if count), default=0)
        told.append(
            f"{name}: {sum(counts):.0f} responses, all under {number(edges[min(largest, len(edges) - 1)])} nats"
        )
    return "Drift of the sampler. " + "; ".join(told)


def curves(
    series: Sequence[tuple[str, int, Sequence[float]]], title: str, unit: str = "step", first: int = 1
) -> Markup:
    """Draw curves one behind the other over all steps: what was measured faintly, its running mean on top.

    Args:
        series: Name, steps in a point, and the points.
        title: What is drawn.
        unit: What the horizontal axis counts.
        first: How many of them lie behind the first point, where a point stands for one.
    """
    height, top, bottom, width = 190.0, 30.0, 160.0, WIDTH / 2
    values = [value for _, _, points in series for value in points]
    low, high = min(values), max(values)
    y = Scale(min(low, 0.0) if low < high / 2 else low - (high - low), max(high, low + 1e-12), bottom, top)
    series = [(name, *_thinned(stride, points, len(values))) for name, stride, points in series]
    steps = sum(stride * (len(points) - 1 + first) for _, stride, points in series)
    x = Scale(0.0, float(max(steps, 1)), LEFT - 6, width - RIGHT)
    parts = [text(2, 16, title, "label strong", "start"), *value_axis(y, LEFT - 6, width - RIGHT)]
    parts += [text(x(value), bottom + 16, number(value)) for value in x.ticks()]
    begin = 0.0
    for which, (_, stride, points) in enumerate(series):
        places = [x(begin + stride * (place + first)) for place in range(len(points))]
        smooth = _running_mean(points)
        parts.append(polyline(zip(places, map(y, points), strict=True), f"path faint s{which % SERIES}"))
        parts.append(polyline(zip(places, map(y, smooth), strict=True), f"path s{which % SERIES}"))
        begin += stride * len(points)
        if which + 1 < len(series):
            parts.append(line(x(begin), top, x(begin), bottom, "divide"))
    parts.append(text((LEFT + width) / 2, bottom + 28, unit, "tick"))
    told = "; ".join(f"{name}: from {number(p[0])} to {number(p[-1])}" for name, _, p in series if p)
    return picture(width, height, f"{title}, by {unit}. {told}", parts)


def _thinned(stride: int, points: Sequence[float], total: int) -> tuple[int, Sequence[float]]:
    """Merge neighbours where a figure of so many points in all would be finer than anybody sees."""
    merged = -(-total // _MOST_POINTS)
    means = [sum(points[i : i + merged]) / len(points[i : i + merged]) for i in range(0, len(points), merged)]
    return stride * merged, means


def _running_mean(values: Sequence[float]) -> list[float]:
    reach = len(values) // 24
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def stacked(rows: Sequence[tuple[str, Mapping[str, float]]], kinds: Sequence[str]) -> Markup:
    """Draw one bar of seconds a row, a colour for each kind of step; other steps are a row of their own."""
    left, step = 100.0, 28.0
    most = max([sum(row.values()) for _, row in rows] or [1.0]) or 1.0
    x = Scale(0.0, most, left, WIDTH - 70.0)
    parts, top = series_legend(kinds, left)
    for place, (name, row) in enumerate(rows):
        y, at = top + step * place, 0.0
        parts.append(text(left - 10, y + 17, name, "label", "end"))
        for kind, seconds in row.items():
            colour = f"bar s{kinds.index(kind) % SERIES}" if kind in kinds else "bar other"
            parts.append(rect(x(at), y + 4, max(x(at + seconds) - x(at), 0.0), 18, colour))
            at += seconds
        parts.append(text(x(at) + 6, y + 17, duration(at), "value", "start"))
    told = "; ".join(f"{name}: {duration(sum(row.values()))}" for name, row in rows)
    return picture(WIDTH, top + step * len(rows) + 6, f"Time of the steps. {told}", parts)
