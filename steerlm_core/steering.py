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


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_rank = ends - (counts - 1) / 2.0
    return np.asarray(mean_rank[inverse], dtype=float)
