"""P(a|x,y) from a regression model: how likely each integer level is, given the predicted one.

A prediction becomes a continuous distribution, which is integrated over half-integer bins around
the levels; the outermost bins reach to the edge of the distribution. Beta is HelpSteer2's
(arXiv 2406.08673, section 4.5): with r the prediction scaled to [0, 1], alpha = c r and
beta = c - alpha, c = 24. Gaussian is the alternative, with a sigma per attribute.

The incomplete beta function comes from scipy (Boost's, good to the last digits): torch has none, and
quadrature fails at the edges, where the density of a prediction near the end of the range has a pole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import betainc, betaincc, ndtr
from torch import Tensor

from steerlm_core.errors import ConfigError, LevelError, NonFiniteError

Floats = npt.NDArray[np.float64]

# Predictions this near an end count alike: at r = 0 the Beta distribution does not exist.
_CLAMP = 0.01
# Keeps the sum of logs finite. Low, because among responses that are all far off it decides who is nearer:
# with five levels and c = 24 it is never reached.
_FLOOR = 1e-30


def log_likelihood(
    predicted: Tensor,
    targets: Tensor,
    lows: Sequence[int],
    highs: Sequence[int],
    kind: Literal["beta", "gaussian"] = "beta",
    concentration: float = 24.0,
    sigma: Sequence[float] | None = None,
) -> Tensor:
    """Return log P(a|x,y): the sum over the attributes that the target names.

    Args:
        predicted: The attribute model's prediction in levels, `[B, A]`.
        targets: The level asked for, `[B, A]`; NaN where the target does not name the attribute.
        lows: Lowest level of each attribute, `[A]`.
        highs: Highest level of each attribute, `[A]`.
        kind: Distribution around the prediction.
        concentration: alpha + beta of the Beta distribution.
        sigma: Standard deviation in levels of each attribute, `[A]`; gaussian only.

    Returns:
        `[B]`, float64, on the CPU.

    Raises:
        ConfigError: gaussian without a positive sigma for every attribute.
        LevelError: A target is no level of its attribute.
        NonFiniteError: The prediction of a named attribute is NaN or infinite.
    """
    total = torch.zeros(len(predicted), dtype=torch.float64)
    if kind == "gaussian" and (sigma is None or not all(s > 0 for s in sigma)):
        raise ConfigError(f"label.sigma is {sigma}; gaussian needs a positive sigma for every attribute.")
    for a, (low, high) in enumerate(zip(lows, highs, strict=True)):
        column, target = predicted[:, a].double().cpu(), targets[:, a].double().cpu()
        named = _check(column, target, low, high, a)
        width = sigma[a] if kind == "gaussian" and sigma is not None else None
        log_p = level_log_probabilities(column[named], low, high, concentration, width)
        total[named] += log_p.gather(1, (target[named].long() - low)[:, None])[:, 0]
    return total


def level_log_probabilities(
    predicted: Tensor, low: int, high: int, concentration: float = 24.0, sigma: float | None = None
) -> Tensor:
    """Return the log-probability of every level of one attribute, normalised over the levels.

    Args:
        predicted: Finite predictions in levels, `[B]`.
        low: Lowest level.
        high: Highest level.
        concentration: alpha + beta of the Beta distribution.
        sigma: Standard deviation in levels; Gaussian where given.

    Returns:
        `[B, levels]`, float64.
    """
    values = predicted.double().numpy()[:, None]
    edges = np.arange(low, high, dtype=np.float64) + 0.5  # [levels - 1], those between the levels
    if sigma is None:
        below, above = _beta_tails(values, edges, low, high, concentration)
    else:
        below, above = ndtr((edges - values) / sigma), ndtr((values - edges) / sigma)
    mass = np.maximum(_bin_mass(below, above), _FLOOR)
    return torch.from_numpy(np.log(mass / mass.sum(1, keepdims=True)))


def _beta_tails(values: Floats, edges: Floats, low: int, high: int, concentration: float) -> tuple[Floats, Floats]:
    span = max(high - low, 1)  # a single level has no edges, and all the mass
    alpha = concentration * np.clip((values - low) / span, _CLAMP, 1 - _CLAMP)
    scaled = (edges - low) / span
    return betainc(alpha, concentration - alpha, scaled), betaincc(alpha, concentration - alpha, scaled)


def _bin_mass(below: Floats, above: Floats) -> Floats:
    """Return the mass between neighbouring edges, `[B, levels]`, from the mass below and above each edge."""
    zero, one = np.zeros((len(below), 1)), np.ones((len(below), 1))
    below, above = np.hstack([zero, below, one]), np.hstack([one, above, zero])
    # Differences of the smaller tail: near 1 a difference of CDFs is nothing but rounding.
    return np.where(below[:, :-1] < 0.5, np.diff(below, axis=1), -np.diff(above, axis=1))


def _check(predicted: Tensor, target: Tensor, low: int, high: int, attribute: int) -> Tensor:
    """Return which rows name the attribute, bool `[B]`, or raise on what has no likelihood."""
    named = ~target.isnan()
    wrong = named & ~((target == target.round()) & (target >= low) & (target <= high))
    for row in wrong.nonzero()[:1, 0].tolist():
        raise LevelError(
            f"row {row}, attribute {attribute}: the target is {target[row].item()}; "
            f"it must be an integer from {low} to {high}, or NaN where the target does not name the attribute."
        )
    for row in (named & ~predicted.isfinite()).nonzero()[:1, 0].tolist():
        raise NonFiniteError(f"row {row}, attribute {attribute}: the attribute model predicts {predicted[row].item()}.")
    return named
