"""The training groups, and the order in which they are visited.

    parquet parts ─► TrainGroups (valid candidates only) ─► a permutation an epoch ─► global batches

Batch k is a function of (seed, number of groups, batch size, k) alone, so "where was I" is one number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from steerlm_core.errors import DataError, NonFiniteError
from steerlm_core.models.groups import TokenGroup
from steerlm_core.training.job import TrainGroup

_COLUMNS = ["group_id", "prompt_ids", "responses", "valid", "log_q", "log_p_start", "log_ws"]
_WEIGHT_TOLERANCE = 1e-4  # how far the target weights of a group may sum from 1


def load_groups(parts: Sequence[Path]) -> tuple[list[TrainGroup], int]:
    """Read the groups of all parts, in order.

    Returns:
        The groups with their valid candidates, and how many groups were dropped for having fewer than two.

    Raises:
        DataError: A part cannot be read, no group is left, or a group's target weights do not sum to 1.
        NonFiniteError: A log-probability of a valid candidate is NaN or infinite.
    """
    groups, dropped = [], 0
    for part in parts:
        for row in _rows(part):
            kept = [index for index, valid in enumerate(row["valid"]) if valid]
            if len(kept) < 2:
                dropped += 1
                continue
            groups.append(_group(row, kept, part))
    if not groups:
        raise DataError(
            f"{len(parts)} part(s) of training groups hold no group with two valid candidates ({dropped} dropped). "
            "Raise generate.max_new_tokens or generate.candidates, so that more responses come to their end."
        )
    return groups, dropped


def _rows(part: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(part, columns=_COLUMNS).to_pylist()
        return rows
    except (OSError, ValueError) as error:
        raise DataError(f"{part}: no readable part of training groups: {error}. Run the weigh step again.") from error


def _group(row: Mapping[str, Any], kept: Sequence[int], part: Path) -> TrainGroup:
    name = f"{part.name}: group {row['group_id']}"
    responses = tuple(tuple(row["responses"][index]) for index in kept)
    if not row["prompt_ids"] or not all(responses):
        raise DataError(f"{name}: an empty prompt or an empty valid response. Run the generate step again.")
    logs = {key: tuple(float(row[key][index]) for index in kept) for key in ("log_q", "log_p_start", "log_ws")}
    for key in ("log_q", "log_p_start"):
        if not np.isfinite(logs[key]).all():
            raise NonFiniteError(f"{name}: {key} is {logs[key]}; it must be finite. Run the steps before again.")
    total = float(np.exp(logs["log_ws"]).sum())
    if not abs(total - 1) <= _WEIGHT_TOLERANCE:
        raise DataError(f"{name}: the target weights of its valid candidates sum to {total:.6g}, not 1. Weigh again.")
    return TrainGroup(str(row["group_id"]), TokenGroup(tuple(row["prompt_ids"]), responses), **logs)


@dataclass(frozen=True)
class BatchOrder:
    """Global batches of `batch_groups` groups; the short last batch of an epoch is kept."""

    groups: int
    batch_groups: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the groups."""
        return -(-self.groups // self.batch_groups)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training run."""
        return self.epochs * self.steps_per_epoch

    def batch(self, step: int) -> list[int]:
        """Return the indices of the groups of one global batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _permutation(self.seed, epoch, self.groups)
        return order[place * self.batch_groups : (place + 1) * self.batch_groups]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> list[int]:
    return [int(index) for index in np.random.default_rng([seed, epoch]).permutation(count)]
