"""decide: the evaluations so far become a commit: accepted or not; continue or stop, and why.

`commit.json` is written last and create-only: the iteration exists when it does. `decision.json`
is written once, when the loop has stopped.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from steerlm_core import layout
from steerlm_core.convergence import Evaluation, decide
from steerlm_core.errors import RunStateError
from steerlm_core.steps.context import StepContext
from steerlm_core.store.sealed import seal


def run(context: StepContext) -> dict[str, Any]:
    """Commit the iteration; returns the commit.

    Raises:
        RunStateError: Another runner has committed this iteration with another result.
    """
    key = layout.commit(context.iteration)
    if not context.store.exists(key):
        commit = _commit(context)
        context.check_lease()
        if not context.store.create(key, seal(commit)) and (winner := context.document(key)) != commit:
            raise RunStateError(
                f"{context.store.root}/{key}: another runner has committed this iteration first, with another result "
                f"({winner['reason']}). Its commit stands; this runner stops."
            )
    commit = context.document(key)
    if commit["stop"]:
        context.store.create(layout.DECISION, seal(commit))
    return commit


def best_policy(context: StepContext, before: int) -> str:
    """Return the prefix of the model that iteration `before` starts from: the last accepted one's, or policy 0.

    Raises:
        RunStateError: An earlier iteration has no commit.
    """
    for iteration in reversed(range(before)):
        if context.document(layout.commit(iteration))["accepted"]:
            return layout.policy_model(iteration)
    return layout.policy_model(None)


def _commit(context: StepContext) -> dict[str, Any]:
    evaluations = [_evaluation(context, iteration) for iteration in range(context.iteration + 1)]
    decision = decide(evaluations, context.config.convergence)
    return {
        "iteration": context.iteration,
        **asdict(decision),
        "model": context.manifest(layout.policy_model(context.iteration)).content_digest,
        "evaluation": context.manifest(layout.evaluation(context.iteration)).content_digest,
    }


def _evaluation(context: StepContext, iteration: int) -> Evaluation:
    """Read what an iteration measured; complete groups only."""
    rows = [
        row for _, table in context.tables(layout.evaluation(iteration)) for row in table.to_pylist() if row["complete"]
    ]

    def column(name: str) -> dict[str, float]:
        return {row["group_id"]: row[name] for row in rows}

    past, dropped = iteration < context.iteration, context.config.generate.truncated == "drop"
    return Evaluation(
        iteration=iteration,
        distance_before=column("distance_before"),
        distance_after=column("distance_after"),
        ess=column("ess"),
        truncated_before=column("truncated_before") if dropped else {},
        truncated_after=column("truncated_after") if dropped else {},
        n_candidates=context.config.generate.candidates,
        accepted=context.document(layout.commit(iteration))["accepted"] if past else None,
    )
