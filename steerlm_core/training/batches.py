"""Random batches of similar length: little is computed on padding, and a pass is still well mixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def length_batches(lengths: Sequence[int], size: int, seed: int, epoch: int, pool: int = 8) -> list[list[int]]:
    """Return the batches of one pass, as row numbers.

    Rows are shuffled, cut into pools, sorted by length within each, cut into batches; the batches are
    shuffled again.

    Args:
        lengths: Tokens of each row.
        size: Rows in a batch.
        seed: Same seed and epoch, same batches.
        epoch: Number of the pass.
        pool: Batches in a pool; 1 mixes lengths freely.
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order: list[int] = torch.randperm(len(lengths), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), size * pool):
        rows = sorted(order[start : start + size * pool], key=lambda row: lengths[row])
        batches += [rows[first : first + size] for first in range(0, len(rows), size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
