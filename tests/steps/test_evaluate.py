"""Evaluation: which groups are measured."""

import math


def test_groups_short_of_n_stay_out_of_the_distance_and_are_counted(dropping):
    measured = dropping.rows("iterations/000/evaluation")
    complete = {g["group_id"] for g in dropping.rows("iterations/000/groups", "held_out") if g["complete"]}
    assert {row["group_id"] for row in measured if row["complete"]} == complete
    assert all(math.isnan(row["distance_after"]) != row["complete"] for row in measured)
    summary = dropping.json("iterations/000/evaluation/evaluation.json")
    assert (summary["groups"], summary["groups_left_out"]) == (len(complete), len(measured) - len(complete))
