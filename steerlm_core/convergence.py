"""Whether an iteration is accepted and whether the loop stops, with a reason that a person can read.

The signal is the distance of the trained model on held-out groups. Every comparison pairs the groups
that both sides have and bootstraps over them (percentile intervals, two-sided, a fixed seed), so the
same evaluations always give the same decision. The rules, in the order in which they are tried:

1. `regressed`: the distance or the truncation rate surely rose in training. Not accepted; two in a row stop.
2. `uninformative`: the weights rest on too few responses for the distance to mean much. Go on.
3. `converged`: the distance is surely under the tolerance. Stop.
4. `plateau`: the improvement over the best so far is surely too small, `patience` times in a row. Stop.
5. `continue`: it surely improves, or the interval cannot tell, which the reason then says.

An iteration that would go on but is the last one allowed is `max_iterations`, accepted or not.
"Surely" means that the whole interval lies on one side: absence of evidence never stops a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from steerlm_core.config import ConvergenceConfig
from steerlm_core.errors import DataError, NonFiniteError

Kind = Literal["regressed", "converged", "plateau", "uninformative", "max_iterations", "continue"]
Floats = npt.NDArray[np.float64]

_SEED = 0
# With thousands of groups the smallest rise of the truncation rate is sure; below a percentage point none matters.
_LEAST_RISE = 0.01
# A distance this small is rounding; keeps relative improvements over it finite.
_SMALLEST_DISTANCE = 1e-12


@dataclass(frozen=True)
class Evaluation:
    """What one iteration measured on the held-out groups; every mapping is by group id."""

    iteration: int
    distance_before: Mapping[str, float]
    distance_after: Mapping[str, float]
    ess: Mapping[str, float]
    truncated_before: Mapping[str, float]
    """Share of the group's responses cut by the length limit; empty where those are kept: the distance sees them."""
    truncated_after: Mapping[str, float]
    """The same under the trained model, estimated by importance weighting."""
    n_candidates: int
    accepted: bool | None = None
    """As decided, for past iterations; ignored in the one under decision."""


@dataclass(frozen=True)
class Decision:
    """What becomes of the iteration and of the loop."""

    accepted: bool
    stop: bool
    reason: str
    best_iteration: int | None
    """The best accepted iteration, this one included; None: policy 0 is all there is."""
    kind: Kind


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds."""

    estimate: float
    low: float
    high: float
    groups: int
    """Number of groups that it rests on."""

    def __format__(self, spec: str) -> str:
        """Format as `estimate [low, high]`, each number by `spec`."""
        return f"{self.estimate:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def decide(
    evaluations: Sequence[Evaluation], criteria: ConvergenceConfig, max_iterations: int | None = None
) -> Decision:
    """Decide on the last of the evaluations.

    Args:
        evaluations: Those of iterations 0, 1, ... up to the one under decision.
        criteria: Thresholds and the level of the intervals.
        max_iterations: Most iterations of the run; None: no limit.

    Raises:
        DataError: The evaluations are not a run's: gaps, different N, undecided ones, too few shared groups.
        NonFiniteError: A value is NaN or infinite.
    """
    _check(evaluations)
    now = evaluations[-1]
    worse = _regression(now, criteria)
    history = [*evaluations[:-1], replace(now, accepted=worse is None)]
    kind, reason = _judge(history, criteria) if worse is None else ("regressed", worse)
    second = worse is not None and len(history) > 1 and history[-2].accepted is False
    stop = second or kind in ("converged", "plateau")
    if worse is not None:
        reason += (
            "; the second in a row, so the run stops" if second else "; the next samples afresh from the same policy"
        )
    if not stop and max_iterations is not None and now.iteration + 1 >= max_iterations:
        kind, stop = "max_iterations", True
        reason += f"; max_iterations is {max_iterations}, and raising it goes on"
    best = _best(history)
    return Decision(worse is None, stop, f"{reason}.", best.iteration if best else None, kind)


def mean_interval(values: Mapping[str, float] | Sequence[float], confidence: float, samples: int) -> Interval:
    """Return the mean over groups with its bootstrap interval.

    Args:
        values: One value a group; a mapping counts in the order of its sorted keys.
        confidence: Two-sided level, such as 0.9.
        samples: Number of resamples.
    """
    column = [values[key] for key in sorted(values)] if isinstance(values, Mapping) else list(values)
    return _bootstrap(np.asarray(column, dtype=np.float64)[:, None], lambda means: means[..., 0], confidence, samples)


def paired_improvement(
    best: Mapping[str, float], now: Mapping[str, float], confidence: float, samples: int
) -> Interval:
    """Return the relative improvement (best - now) / best of the mean distance, over the groups in both.

    Args:
        best: Distance by group id of what is compared against.
        now: Distance by group id.
        confidence: Two-sided level, such as 0.9.
        samples: Number of resamples; the ratio is formed in each.
    """
    return _bootstrap(_paired(best, now), _relative_improvement, confidence, samples)


def paired_rise(before: Mapping[str, float], after: Mapping[str, float], confidence: float, samples: int) -> Interval:
    """Return the mean of after - before over the groups in both.

    Args:
        before: Value by group id.
        after: Value by group id.
        confidence: Two-sided level, such as 0.9.
        samples: Number of resamples.
    """
    return _bootstrap(_paired(before, after), lambda means: means[..., 1] - means[..., 0], confidence, samples)


def _bootstrap(rows: Floats, statistic: Callable[[Floats], Floats], confidence: float, samples: int) -> Interval:
    """Resample the groups, `[n, k]`, and return the percentile interval of a function of the k means."""
    groups = len(rows)
    if groups < 2:
        raise DataError(f"an interval needs two held-out groups at least, found {groups}; raise prompts.held_out.")
    if not np.isfinite(rows).all():
        row = int(np.argwhere(~np.isfinite(rows))[0, 0])
        raise NonFiniteError(f"held-out group number {row} of {groups}, in order of id: found {rows[row].tolist()}.")
    counts = np.random.default_rng(_SEED).multinomial(groups, np.full(groups, 1 / groups), size=samples)
    low, high = np.quantile(statistic(counts @ rows / groups), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(statistic(rows.mean(0))), float(low), float(high), groups)


def _paired(first: Mapping[str, float], second: Mapping[str, float]) -> Floats:
    shared = sorted(first.keys() & second.keys())
    return np.array([[first[key], second[key]] for key in shared], dtype=np.float64).reshape(-1, 2)


def _relative_improvement(means: Floats) -> Floats:
    best = np.maximum(means[..., 0], _SMALLEST_DISTANCE)
    return np.asarray((best - np.maximum(means[..., 1], _SMALLEST_DISTANCE)) / best)


def _regression(now: Evaluation, criteria: ConvergenceConfig) -> str | None:
    """Return how the iteration surely got worse in training, or None."""
    start = f"Iteration {now.iteration} regressed and is not accepted: the"
    level, samples = criteria.confidence, criteria.bootstrap_samples
    rise = paired_rise(now.distance_before, now.distance_after, level, samples)
    if rise.low > 0:
        return f"{start} distance rose in training by {rise:.3f} nats ({_basis(rise, criteria)})"
    if not now.truncated_before:
        return None
    rise = paired_rise(now.truncated_before, now.truncated_after, level, samples)
    if rise.low > _LEAST_RISE:
        return f"{start} share of truncated responses rose in training by {rise:.1%} ({_basis(rise, criteria)})"
    return None


def _judge(history: Sequence[Evaluation], criteria: ConvergenceConfig) -> tuple[Kind, str]:
    """Return the kind and the reason of an accepted iteration."""
    now = history[-1]
    level = mean_interval(now.distance_after, criteria.confidence, criteria.bootstrap_samples)
    measured = f"a distance of {level:.3f} nats ({_basis(level, criteria)})"
    if not _informative(now, criteria):
        return "uninformative", (
            f"Iteration {now.iteration} is uninformative: the median effective sample size is {_median_ess(now):.2f} "
            f"of {now.n_candidates}, under {criteria.min_ess:g}, so that {measured} says little; "
            "more candidates, shorter responses or a better policy 0 would help"
        )
    start = f"Iteration {now.iteration} has {measured}"
    if level.high < criteria.tolerance:
        return "converged", f"{start}, surely under the tolerance of {criteria.tolerance:g}: converged"
    return _judge_improvement(history, criteria, start)


def _judge_improvement(history: Sequence[Evaluation], criteria: ConvergenceConfig, start: str) -> tuple[Kind, str]:
    reference, gain = _improvement(history, criteria)
    wanted = f"the {criteria.min_relative_improvement:.0%} asked for"
    start = f"{start}, an improvement of {gain:.1%} over {reference} ({_basis(gain, criteria)})"
    length = _plateau_length(history, criteria)
    if length:
        kind: Kind = "plateau" if length >= criteria.patience else "continue"
        return kind, f"{start}, surely under {wanted}: on the plateau for {length} of {criteria.patience} iterations"
    if gain.low >= criteria.min_relative_improvement:
        return "continue", f"{start}, surely no less than {wanted}: still improving"
    return "continue", f"{start}; {wanted} lies inside the interval, undecided: more held-out groups would tell"


def _plateau_length(history: Sequence[Evaluation], criteria: ConvergenceConfig) -> int:
    """Return how many of the latest iterations were on the plateau; any other kind breaks the row."""
    length = 0
    while length < len(history) and _on_plateau(history[: len(history) - length], criteria):
        length += 1
    return length


def _on_plateau(history: Sequence[Evaluation], criteria: ConvergenceConfig) -> bool:
    if not history[-1].accepted or not _informative(history[-1], criteria):
        return False
    return _improvement(history, criteria)[1].high < criteria.min_relative_improvement


def _improvement(history: Sequence[Evaluation], criteria: ConvergenceConfig) -> tuple[str, Interval]:
    """Return the improvement of the last iteration over the best before it, and what that was."""
    best = _best(history[:-1])
    name = f"iteration {best.iteration}" if best else "policy 0"
    distances = best.distance_after if best else history[0].distance_before
    now = history[-1].distance_after
    return name, paired_improvement(distances, now, criteria.confidence, criteria.bootstrap_samples)


def _best(history: Sequence[Evaluation]) -> Evaluation | None:
    """Return the accepted iteration of lowest mean distance; two are compared on the groups that both have."""
    best: Evaluation | None = None
    for challenger in (evaluation for evaluation in history if evaluation.accepted):
        if best is None:
            best = challenger
            continue
        means = _paired(best.distance_after, challenger.distance_after).mean(0)
        best = challenger if means[1] < means[0] else best
    return best


def _median_ess(evaluation: Evaluation) -> float:
    return float(np.median(list(evaluation.ess.values())))


def _informative(evaluation: Evaluation, criteria: ConvergenceConfig) -> bool:
    return _median_ess(evaluation) >= criteria.min_ess


def _basis(interval: Interval, criteria: ConvergenceConfig) -> str:
    return f"{criteria.confidence:.0%} interval, {interval.groups} groups"


def _check(evaluations: Sequence[Evaluation]) -> None:
    numbers = [evaluation.iteration for evaluation in evaluations]
    if not numbers or numbers != list(range(len(numbers))):
        raise DataError(f"evaluations of iterations {numbers}; a decision needs those of 0, 1, ... without a gap.")
    sizes = sorted({evaluation.n_candidates for evaluation in evaluations})
    if len(sizes) > 1:
        raise DataError(
            f"evaluations with {sizes} candidates a group: distances of different N must not be compared. "
            "Keep generate.candidates for the whole run."
        )
    for evaluation in evaluations[:-1]:
        if evaluation.accepted is None:
            raise DataError(f"iteration {evaluation.iteration} has not been decided on; decide in order.")
