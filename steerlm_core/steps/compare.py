"""compare: the best policy against the one that the run started from, both on fresh candidates.

    confirmation of policy 0 ┐
                             ├─► change of distance and of steering error, paired by group
    confirmation of the best ┘

Both are measured on the same held-out pairs, so the change is paired; its interval tells what is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from steerlm_core import layout
from steerlm_core.convergence import paired_rise
from steerlm_core.steps import confirm
from steerlm_core.steps.context import StepContext
from steerlm_core.store.sealed import seal


def run(context: StepContext, best: int) -> dict[str, Any]:
    """Confirm both policies, and compare them; returns the comparison."""
    key = layout.comparison_document(layout.confirmation(best))
    if not context.store.exists(key):
        old, new = (context.at(confirm.stage_of(policy)) for policy in (None, best))
        for each in (old, new):
            confirm.run(each)
        context.check_lease()
        context.store.create(key, seal(_compare(old, new)))
    return context.document(key)


def _compare(old: StepContext, new: StepContext) -> dict[str, Any]:
    criteria = old.config.convergence

    def rise(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        found = paired_rise(before, after, criteria.confidence, criteria.bootstrap_samples)
        return {"mean": found.estimate, "low": found.low, "high": found.high}

    return {
        "distance": rise(confirm.fresh_distances(old), confirm.fresh_distances(new)),
        "steering_error": rise(steering_errors(old), steering_errors(new)),
    }


def steering_errors(context: StepContext) -> dict[str, float]:
    """Return each group's mean |requested - predicted| in levels, over its candidates and attributes."""
    stage, names = context.here.prefix, context.config.attribute_names
    targets: dict[tuple[str, int], dict[str, int]] = {}
    for _, table in context.tables(layout.stage_output(stage, "candidates"), ["held_out"]):
        for row in table.select(["group_id", "index", "target"]).to_pylist():
            targets[row["group_id"], row["index"]] = dict(row["target"])
    errors: dict[str, list[float]] = {}
    for _, table in context.tables(layout.stage_output(stage, "labels"), ["held_out"]):
        for row in table.to_pylist():
            target = targets[row["group_id"], row["index"]]
            levels = zip(names, row["predicted"], strict=True)
            errors.setdefault(row["group_id"], []).extend(abs(target[n] - got) for n, got in levels if n in target)
    return {group: fmean(found) for group, found in errors.items() if found}
