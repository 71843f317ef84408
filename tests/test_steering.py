"""Steering tables: rank correlation as scipy has it, and judges only where they have a say."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from steerlm_core.steering import level_counts, spearman, steering_table

NAN = math.nan


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_spearman_is_scipys_with_and_without_ties(seed, levels):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, levels, (2, 40))
    mixed = first + 2 * second
    assert spearman(first, mixed) == pytest.approx(spearmanr(first, mixed).statistic, abs=1e-12)
    assert spearman(first, -first) == pytest.approx(-1)


def test_spearman_of_little_or_of_a_constant_is_nan():
    assert math.isnan(spearman([], []))
    assert math.isnan(spearman([1, 2], [1, 2]))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1, 2, 3], [5, 5, 5]))


def test_a_table_compares_each_judge_with_what_was_asked():
    requested = [{"length": 0, "mood": 4}, {"length": 1, "mood": 3}, {"length": 2, "mood": 1}, {"length": 2, "mood": 0}]
    predicted = [[0.5, 4.0], [1.0, 3.0], [3.0, 2.0], [1.0, 0.0]]
    measured = [[1.0, NAN], [2.0, NAN], [3.0, NAN], [4.0, NAN]]
    table = steering_table(requested, {"predicted": predicted, "measured": measured}, ["length", "mood"])
    length = [0, 1, 2, 2]
    assert table["length"] == pytest.approx(
        {
            "responses": 4,
            "spearman_predicted": spearmanr(length, [0.5, 1, 3, 1]).statistic,
            "mae_predicted": (0.5 + 0 + 1 + 1) / 4,
            "spearman_measured": spearmanr(length, [1, 2, 3, 4]).statistic,
            "mae_measured": (1 + 1 + 1 + 2) / 4,
        }
    )
    assert table["mood"] == pytest.approx({"responses": 4, "spearman_predicted": 1, "mae_predicted": 0.25})


def test_responses_that_were_not_asked_for_an_attribute_do_not_count():
    requested = [{"length": 0}, {"mood": 3}, {"length": 1}, {"length": 2, "mood": 1}]
    judged = {"predicted": [[0.0, 9.0], [9.0, 3.0], [1.0, 9.0], [2.5, 3.0]]}
    table = steering_table(requested, judged, ["length", "mood", "humor"])
    assert table["length"] == pytest.approx({"responses": 3, "spearman_predicted": 1, "mae_predicted": 0.5 / 3})
    assert table["mood"]["responses"] == 2
    assert table["mood"]["mae_predicted"] == pytest.approx(1)
    assert math.isnan(table["mood"]["spearman_predicted"])
    assert table["humor"] == {"responses": 0}


def test_levels_are_counted_by_what_was_asked_and_what_came_out():
    requested = [{"length": 0}, {"length": 2, "mood": 1}, {"length": 2}, {"length": 1}]
    judged = {
        "predicted": [[-0.7, 0], [1.5, 0.2], [3.9, 0], [0.49, 0]],
        "measured": [[0, NAN], [2, NAN], [1, 2], [1, 1]],
    }
    counts = level_counts(requested, judged, [("length", 0, 2), ("mood", 0, 1), ("humor", 0, 4)])
    assert counts["length"]["predicted"] == [[1, 0, 0], [1, 0, 0], [0, 0, 2]]
    assert counts["length"]["measured"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert counts["mood"] == {"predicted": [[0, 0], [1, 0]]}  # measured has no say on the one response
    assert "humor" not in counts
