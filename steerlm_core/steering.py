"""Steering, measured: requested against predicted and measured levels. Pure numbers, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MIN_PAIRS = 3  # a rank correlation of fewer says nothing


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; NaN where one side is constant."""
    a, b = _ranks(np.asarray(first, float)), _ranks(np.asarray(second, float))
    if len(a) < _MIN_PAIRS or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def steering_table(
    requested: Sequence[dict[str, int]], judged: dict[str, Sequence[Sequence[float]]], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Compare what was asked for with what came out.

    Args:
        requested: The target of each response.
        judged: Levels `[responses, attributes]` by judge: `predicted`, `measured`; NaN where a judge has no say.
        names: The attributes, in order.

    Returns:
        By attribute: `spearman_JUDGE` and `mae_JUDGE` of every judge that has a say.
    """
    table: dict[str, dict[str, float]] = {}
    for column, name in enumerate(names):
        rows = [i for i, target in enumerate(requested) if name in target]
        wanted = [float(requested[i][name]) for i in rows]
        entry = table.setdefault(name, {"responses": float(len(rows))})
        for judge, levels in judged.items():
            got = [float(levels[i][column]) for i in rows]
            if got and not np.isnan(got).any():
                entry[f"spearman_{judge}"] = spearman(wanted, got)
                entry[f"mae_{judge}"] = float(np.mean(np.abs(np.array(wanted) - np.array(got))))
    return table


def level_counts(
    requested: Sequence[dict[str, int]],
    judged: dict[str, Sequence[Sequence[float]]],
    ranges: Sequence[tuple[str, int, int]],
) -> dict[str, dict[str, list[list[int]]]]:
    """Count which levels came out for each level that was asked for.

    Args:
        requested: The target of each response.
        judged: Levels `[responses, attributes]` by judge, as in `steering_table`.
        ranges: Name, lowest and highest level of every attribute, in order.

    Returns:
        By attribute and judge, where the judge has a say: counts `[requested, found]` over the levels of the attribute;
        what is found is rounded, halves upward, and held within the range.
    """
    table: dict[str, dict[str, list[list[int]]]] = {}
    for column, (name, low, high) in enumerate(ranges):
        rows = [i for i, target in enumerate(requested) if name in target]
        wanted = np.array([requested[i][name] for i in rows], dtype=int)
        for judge, levels in judged.items():
            got = np.array([levels[i][column] for i in rows], dtype=float)
            if len(got) and not np.isnan(got).any():
                found = np.clip(np.floor(got + 0.5), low, high).astype(int)
                counts = np.zeros((high - low + 1, high - low + 1), dtype=int)
                np.add.at(counts, (wanted - low, found - low), 1)
                table.setdefault(name, {})[judge] = counts.tolist()
    return table


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_rank = ends - (counts - 1) / 2.0
    return np.asarray(mean_rank[inverse], dtype=float)
