"""confirm: after the stop, the best policy on fresh candidates: fresh distance and steering.

No candidate that any decision has seen is used again. `distance` here is KL(ws || b at the policy
that the candidates were sampled from), on the held-out pairs.
"""

from __future__ import annotations

from typing import Any

from steerlm_core import layout
from steerlm_core.convergence import mean_interval
from steerlm_core.steps import generate, label, score_prior, weigh
from steerlm_core.steps.context import Stage, StepContext
from steerlm_core.steps.evaluate import measure_groups, stage_steering
from steerlm_core.steps.rows import Row
from steerlm_core.steps.weigh import diagnostics
from steerlm_core.store.sealed import seal

_FRESH_DRAW = 1_000_000  # far above every iteration's number


def stage_of(policy: int | None) -> Stage:
    """Return the stage that confirms an iteration's policy, or policy 0: its candidates are like no iteration's."""
    return Stage(layout.confirmation(policy), layout.policy_model(policy), ("held_out",), _FRESH_DRAW)


def run(context: StepContext) -> dict[str, Any]:
    """Sample, label, score and weigh fresh candidates of the stage's policy; returns the confirmation."""
    for step in (generate, label, score_prior, weigh):
        step.run(context)
    key = layout.confirmation_document(context.here.prefix)
    context.check_lease()
    context.store.create(key, seal(summarise(context)))
    return context.document(key)


def summarise(context: StepContext) -> dict[str, Any]:
    """Fresh distance with its interval, ESS and steering of the stage."""
    stage, criteria = context.here, context.config.convergence
    groups, measured = _measured(context)
    fresh = _distances(measured)
    found = mean_interval(fresh, criteria.confidence, criteria.bootstrap_samples)
    return {
        "policy": stage.policy,
        "distance": {"mean": found.estimate, "low": found.low, "high": found.high},
        "groups": found.groups,
        "groups_left_out": len(measured) - len(fresh),
        **diagnostics([group for group in groups if group["complete"]]),
        "truncation": sum(row["truncated_before"] for row in measured) / len(measured),
        **stage_steering(context),
    }


def fresh_distances(context: StepContext) -> dict[str, float]:
    """Return the fresh distance of every complete group of the stage, by group id."""
    return _distances(_measured(context)[1])


def _measured(context: StepContext) -> tuple[list[Row], list[Row]]:
    """The stage's groups, and what is measured of each at the policy that they were sampled from."""
    weighed = layout.stage_output(context.here.prefix, "groups")
    groups = [row for _, table in context.tables(weighed) for row in table.to_pylist()]
    for group in groups:
        group["log_p"] = group["log_p_start"]
    return groups, measure_groups(groups, context.config.generate.candidates)


def _distances(measured: list[Row]) -> dict[str, float]:
    return {row["group_id"]: row["distance_before"] for row in measured if row["complete"]}
