"""Kills a training run again and again, at random moments, until it ends; run as a program of its own.

    python -m tests.distributed.kills JOB.json WORLD one|all KILLS SEED

A moment is a random number of steps after the last checkpoint, plus up to 60 ms: it falls into
loading, scoring, a step or the writing of a checkpoint. Prints one JSON object: the kills and where they fell.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from steerlm_core.training.job import TrainJob
from tests.distributed.ranks import fork, import_everything, reap

_ALONE_SECONDS = 10.0  # so long survivors may take to notice


def main(job: TrainJob, world: int, victims: str, kills: int, seed: int) -> None:
    import_everything()
    rng = random.Random(seed)
    fell: list[int] = []
    while len(fell) < kills:
        ranks = fork(job, world)
        step = _wait_for_moment(job, ranks, rng)
        assert step is not None, f"the run ended after {len(fell)} of {kills} kills; give it more steps"
        for rank in ranks if victims == "all" else [rng.choice(ranks)]:
            os.kill(rank, signal.SIGKILL)
        fell.append(step)
        reap(ranks, _ALONE_SECONDS)
    codes = reap(fork(job, world), 600.0)
    assert codes == [0] * world, codes
    print(json.dumps({"kills_after_step": fell}))


def _steps(job: TrainJob) -> int:
    path = job.output.parent / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait_for_moment(job: TrainJob, ranks: list[int], rng: random.Random) -> int | None:
    """Return the steps done when the moment has come, or None where the run has ended before."""
    target = max(_steps(job) - 1, 0) + rng.randrange(0, 8)
    while _steps(job) < target:
        if any(os.waitid(os.P_PID, rank, os.WEXITED | os.WNOHANG | os.WNOWAIT) for rank in ranks):
            return None
        time.sleep(0.002)
    time.sleep(rng.random() * 0.06)
    return _steps(job)


if __name__ == "__main__":
    numbers = [int(sys.argv[place]) for place in (2, 4, 5)]
    main(TrainJob.from_json(Path(sys.argv[1]).read_text()), numbers[0], sys.argv[3], *numbers[1:])
