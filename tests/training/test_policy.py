"""The policy that is trained: whole, or by an adapter."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlm_core.training.run import train
from tests.distributed.world import change, make_job, weights


def test_lora_leaves_the_adapter_and_a_model_with_it_merged(world: tuple[Path, Path], tmp_path: Path) -> None:
    import peft

    job = make_job(tmp_path, *world, lora={"rank": 2, "alpha": 16.0})
    train(job)
    merged = weights(job.output)
    base = AutoModelForCausalLM.from_pretrained(world[0], dtype=torch.float32)
    again = peft.PeftModel.from_pretrained(base, job.output / "adapter").merge_and_unload().state_dict()
    moved = change(merged, weights(world[0]), merged | {"lm_head.weight": merged["lm_head.weight"] + 1})
    assert moved > 1e-6, "the adapters must have learned"
    for name, weight in merged.items():
        torch.testing.assert_close(again[name].double(), weight, atol=1e-6, rtol=1e-5)
    assert len(AutoTokenizer.from_pretrained(job.output)) == 64
    written = b"".join(path.read_bytes() for path in job.output.rglob("*") if path.is_file())
    assert str(world[0].parent).encode() not in written, "equal work gives equal files, wherever it is done"
