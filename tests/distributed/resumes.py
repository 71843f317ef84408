"""Stops each job in one number of processes and ends it in another; run as a program of its own.

    python -m tests.distributed.resumes FOLDER

FOLDER holds `pairs.json`: for each pair the job before and the job after, and their numbers of processes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from steerlm_core.training.job import TrainJob
from tests.distributed.ranks import STOPPED, fork, import_everything, reap

_SECONDS = 120.0


def main(folder: Path) -> None:
    import_everything()
    for pair in json.loads((folder / "pairs.json").read_text()):
        (before, first), (after, second) = pair
        codes = reap(fork(TrainJob.from_json(before), first, stop_at=3), _SECONDS)
        assert codes == [STOPPED] * first, (codes, before)
        codes = reap(fork(TrainJob.from_json(after), second), _SECONDS)
        assert codes == [0] * second, (codes, after)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
