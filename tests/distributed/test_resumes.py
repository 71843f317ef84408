"""A checkpoint knows nothing of the number of processes: a run goes on in any other, and ends the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from steerlm_core.training.run import train
from tests.distributed.world import change, large_groups, make_job, make_policy, token_groups, weights, write_groups

# (ZeRO stage or single, processes) before and after, and what else the job has.
PAIRS: list[tuple[tuple[Any, int], tuple[Any, int], dict[str, Any]]] = [
    ((3, 2), (1, 1), {}),
    ((2, 1), (3, 4), {}),
    ((0, 2), ("single", 1), {}),
    (("single", 1), (2, 2), {}),
    ((1, 4), (0, 2), {}),
    ((3, 4), (3, 2), {"offload_optimizer": True}),
    ((3, 2), (2, 1), {"lora": {"rank": 2}}),
    ((1, 2), (3, 2), {"optimizer": "sgd"}),
    ((1, 2), (3, 2), {"dtype": "bfloat16", "layout": "padded"}),
]


def test_run_goes_on_in_another_number_of_processes(tmp_path: Path, capsys: Any) -> None:
    policy = make_policy(tmp_path / "policy")
    part = write_groups(tmp_path / "part-0.parquet", policy, [*token_groups(14), *large_groups(2)])
    common: dict[str, Any] = {"epochs": 2, "token_budget": 64, "schedule": "linear", "clip_norm": 25.0}
    pairs, jobs = [], []
    for number, (*ends, settings) in enumerate(PAIRS):
        alone = {key: value for key, value in settings.items() if key != "offload_optimizer"}
        reference = make_job(tmp_path / f"reference-{number}", policy, part, **common, **alone)
        train(reference)
        pair = []
        for kind, processes in ends:
            engine = {"engine": "single"} if kind == "single" else {"engine": "deepspeed", "zero_stage": kind}
            job = make_job(tmp_path / f"resumed-{number}", policy, part, **common, **settings, **engine)
            pair.append((job.to_json(), processes))
        pairs.append(pair)
        jobs.append((job, reference))
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    command = [sys.executable, "-m", "tests.distributed.resumes", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    start = weights(policy)
    found = [change(weights(job.output), weights(reference.output), start) for job, reference in jobs]
    with capsys.disabled():
        print("\n(ZeRO, processes) before, after, settings: difference from one undisturbed process")
        print("\n".join(f"{pair!s:75} {value:8.1e}" for pair, value in zip(PAIRS, found, strict=True)))
    for pair, value in zip(PAIRS, found, strict=True):
        # bfloat16 weights round to a hundredth of what they move by.
        assert value < (0.5 if pair[2].get("dtype") == "bfloat16" else 1e-3), pair
