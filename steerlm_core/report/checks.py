"""Whether to trust a run: its guards, each with a verdict and what it means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steerlm_core.report.data import Levels, RunData
from steerlm_core.report.words import fooled

Verdict = Literal["good", "look"]

# The model's probability of its own samples halved or doubled in training: more than noise explains.
_MASS = (0.5, 2.0)
_LEAST_R2 = 0.5
_LOST_CORRELATION = 0.05
_MOST_TRUNCATED_MORE = 0.01
_MOST_LEFT_OUT = 0.1


@dataclass(frozen=True)
class Check:
    """One guard: its name, what was found, whether that is good, and what it is compared with."""

    name: str
    found: str
    verdict: Verdict
    explained: str


def checks(run: RunData) -> list[Check]:
    """Return the guards of the last iteration, and of the run."""
    found = list(_of_iteration(run, run.iterations[-1].fields)) if run.iterations else []
    if run.quality:
        name, worst = min(run.quality.items(), key=lambda item: item[1].get("r2", 0.0))
        r2 = worst.get("r2", 0.0)
        found.append(_check("Attribute model", f"R² {r2:.2f} ({name})", r2 >= _LEAST_R2, f"at least {_LEAST_R2:g}"))
    if len(run.levels) > 1:
        found.append(_steering(run.levels[0], run.levels[-1]))
    if run.confirmation:
        warning = fooled(run.confirmation.get("steering", {}))
        found.append(
            _check("Raters agree", "no" if warning else "yes", not warning, warning or "with the attribute model")
        )
    return found


def _of_iteration(run: RunData, last: Mapping[str, Any]) -> Iterator[Check]:
    limits, least = run.config.generate, run.config.convergence.min_ess
    if (ess := last.get("ess_median")) is not None:
        words = f"{ess:.1f} of {run.config.generate.candidates}"
        yield _check("Effective samples", words, ess >= least, f"at least {least:g}")
    if (far := last.get("drift_far_share")) is not None:
        good = far <= limits.max_drifted_share and last.get("drift_token", 0.0) <= limits.max_token_drift
        yield _check("Sampler drift", f"{far:.2%} far off", good, f"at most {limits.max_drifted_share:.2%}")
    if (mass := last.get("retained_mass")) is not None:
        yield _check("Retained mass", f"{mass:.2f}", _MASS[0] <= mass <= _MASS[1], "near 1")
    if (groups := last.get("groups")) is not None:
        left_out = last.get("groups_left_out", 0)
        good = left_out <= _MOST_LEFT_OUT * (groups + left_out)
        yield _check(
            "Held-out groups", f"{groups}, {left_out} left out", good, f"at most {_MOST_LEFT_OUT:.0%} left out"
        )
    if (after := last.get("truncation_after")) is not None:
        good = after <= last.get("truncation_before", 0.0) + _MOST_TRUNCATED_MORE
        yield _check("Truncated", f"{after:.1%}", good, "no more than before")


def _steering(first: Levels, last: Levels) -> Check:
    """How the rank correlation of the attribute that lost most has changed since policy 0."""
    changes = {}
    for name, row in last.steering.items():
        key = "spearman_measured" if "spearman_measured" in row else "spearman_predicted"
        before, after = first.steering.get(name, {}).get(key), row.get(key)
        if before is not None and after is not None and not math.isnan(after - before):
            changes[name] = (before, after)
    if not changes:
        return Check("Steering", "–", "look", "targets of one level tell nothing about it")
    name, (before, after) = min(changes.items(), key=lambda item: item[1][1] - item[1][0])
    words = f"Spearman correlation of {name}, since policy 0"
    return _check("Steering", f"{before:.2f} → {after:.2f}", after >= before - _LOST_CORRELATION, words)


def _check(name: str, found: str, good: bool, explained: str) -> Check:
    return Check(name, found, "good" if good else "look", explained)
