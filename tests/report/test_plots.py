"""Figures: values where they belong."""

from __future__ import annotations

import re

import pytest

from steerlm_core.report import figures, plots


def test_figures_place_values_where_they_belong():
    svg = plots.boxes([("a", [0, 1, 2, 3, 4, 5, 6])], 0.0, 6.0, "nats")
    x1, x2 = (float(value) for value in re.search(r'x1="([\d.]+)" y1="21" x2="([\d.]+)" y2="21"', svg).groups())
    assert (x1 - 120) / (630 - 120) == pytest.approx(1 / 6, abs=1e-3)
    assert (x2 - 120) / (630 - 120) == pytest.approx(5 / 6, abs=1e-3)
    heat = figures.heatmap([[3, 1], [0, 0]], 2, "measured")
    assert re.findall(r">(\d+%)<", heat) == ["75%", "25%"]
    assert heat.count('class="empty"') == 2  # nobody asked for level 3
    assert "requested 2: mean 2.25, 75% as requested" in heat


def test_curves_keep_their_means_and_their_length_when_they_are_thinned():
    stride, means = plots._thinned(3, [float(n) for n in range(1001)], 5000)
    assert (stride, len(means)) == (9, 334)
    assert means[:2] == [1.0, 4.0]
    assert means[-1] == 999.5
