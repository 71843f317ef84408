"""Trains every combination in the same processes, and writes how far each ends from the float64 reference.

    torchrun --standalone --nproc-per-node 2 -m tests.distributed.table FOLDER

FOLDER holds `combinations.json`, as `tests/distributed/test_weights.py` wrote it: jobs, references, what is planted.
Rank 0 writes `rows-<world>.json`. Every rank derives everything else from there, so that all train the same.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from steerlm_core.training import deepspeed_engine, gradient
from steerlm_core.training.run import train
from tests.distributed.world import change, make_job, weights


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    deepspeed_engine._ALWAYS_WHOLE = 0  # else ZeRO 3 would keep weights this small whole
    device = deepspeed_engine.start_processes()
    assert device.type == "cpu"
    rows = [_row(folder, combination) for combination in json.loads((folder / "combinations.json").read_text())]
    if dist.get_rank() == 0:
        (folder / f"rows-{dist.get_world_size()}.json").write_text(json.dumps([row for row in rows if row]))
    dist.barrier()
    dist.destroy_process_group()


def _row(folder: Path, combination: dict[str, Any]) -> dict[str, Any]:
    """Train one combination on all ranks; return its row on rank 0."""
    world = dist.get_world_size()
    if world not in combination["worlds"]:
        return {}
    place, started = folder / f"world-{world}" / combination["name"], time.monotonic()
    job = make_job(place, folder / combination["policy"], folder / combination["part"], **combination["settings"])
    with _planted(combination["planted"]):
        result = train(job)
    dist.barrier()
    if dist.get_rank() != 0:
        return {}
    start, reference = (weights(folder / name) for name in (combination["policy"], combination["reference"]))
    return {
        **combination,
        "world": world,
        "change": change(weights(job.output), reference, start),
        "seconds": time.monotonic() - started,
        "grad_norm": result.metrics["grad_norm"],
    }


@contextmanager
def _planted(fault: str | None) -> Iterator[None]:
    """Plant a fault in the normalisation for the length of one training run."""
    right = gradient.steerlm_loss

    def per_rank(*terms: Tensor, num_groups: int) -> Tensor:
        return right(*terms, num_groups=len(terms[0]) * dist.get_world_size())

    assert fault in (None, "per-rank normalisation")
    try:
        if fault:
            gradient.steerlm_loss = per_rank  # type: ignore[assignment]
        yield
    finally:
        gradient.steerlm_loss = right


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
