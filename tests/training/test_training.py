"""Training: the gradient, the gates at its start, what it leaves behind; and a little of many processes."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlm_core.config import GenerateConfig, TrainConfig
from steerlm_core.errors import CaptureError, ConfigError, DataError, NonFiniteError
from steerlm_core.models.packing import row_tokens
from steerlm_core.training import gradient, numbers
from steerlm_core.training.data import BatchOrder, load_groups
from steerlm_core.training.engines import SingleEngine
from steerlm_core.training.job import TrainJob
from steerlm_core.training.launch import run_torchrun, torchrun_command, torchrun_environment
from steerlm_core.training.plan import plan_step
from steerlm_core.training.policy import load_policy
from steerlm_core.training.run import train
from steerlm_core.training.schedule import learning_rate
from tests.distributed.world import change, large_groups, make_job, make_policy, token_groups, weights, write_groups


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy, and twelve small groups with two that exceed a budget of 64 tokens."""
    root = tmp_path_factory.mktemp("world")
    policy = make_policy(root / "policy")
    groups = token_groups(12)
    groups[5:5] = large_groups(2)
    return policy, write_groups(root / "part-0.parquet", policy, groups)


def _gradient(job: TrainJob, count: int = 14) -> torch.Tensor:
    groups, _ = load_groups(job.groups)
    batch = groups[:count]
    tokens = [group.tokens for group in batch]
    policy = load_policy(job, tokens)
    engine = SingleEngine(policy, job.config)
    plan = plan_step(tokens, 1, job.config.token_budget, policy.layout)[0]
    gradient.accumulate(engine, batch, plan)
    return torch.cat([weight.grad.flatten() for weight in policy.trained().values() if weight.grad is not None])


def test_gradient_is_the_same_in_one_pass_two_passes_and_micro_batches(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    whole = _gradient(make_job(tmp_path, *world, dtype="float64", token_budget=100_000))
    tokens = [group.tokens for group in load_groups((world[1],))[0]]
    assert plan_step(tokens, 1, 64, "shared_prefix")[0].parts, "the budget of 64 must cut groups"
    for settings in ({"token_budget": 64}, {"token_budget": 128}, {"token_budget": 64, "layout": "padded"}):
        other = _gradient(make_job(tmp_path, *world, dtype="float64", **settings))
        assert float((other - whole).norm() / whole.norm()) < 1e-7, settings  # its norm layers compute in float32


def test_activation_checkpointing_leaves_the_gradient_and_dropout_off(world: tuple[Path, Path], tmp_path: Path) -> None:
    """The policy's configuration asks for attention dropout 0.1; recomputation needs the training mode."""
    plain = _gradient(make_job(tmp_path, *world, dtype="float64"))
    recomputed = _gradient(make_job(tmp_path, *world, dtype="float64", activation_checkpointing=True))
    assert float((recomputed - plain).norm() / plain.norm()) < 1e-12


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("layout", ["shared_prefix", "padded"])
def test_plan_has_every_response_once_within_budget_and_equal_passes(world_size: int, layout: Any) -> None:
    groups = token_groups(7, seed=3) + large_groups(3, seed=4)
    plans = plan_step(groups, world_size, 64, layout)
    assert len({(len(plan.scored), len(plan.whole), len(plan.parts)) for plan in plans}) == 1
    passes = [item for plan in plans for item in plan.whole + plan.parts]
    seen = sorted(
        (piece.position, index) for item in passes for piece in item for index in range(piece.start, piece.stop)
    )
    assert seen == [(position, index) for position, group in enumerate(groups) for index in range(len(group.responses))]
    for item in passes:
        assert sum(row_tokens(piece.of(groups[piece.position]), layout) for piece in item) <= 64
    assert all(plan.scored == plan.parts for plan in plans)


def test_order_visits_every_group_once_an_epoch_and_keeps_the_short_batch() -> None:
    order = BatchOrder(groups=10, batch_groups=4, epochs=2, seed=7)
    epochs = [[order.batch(step) for step in range(3)], [order.batch(step) for step in range(3, 6)]]
    assert order.steps == 6
    assert [len(batch) for batch in epochs[0]] == [4, 4, 2]
    assert [sorted(chain.from_iterable(epoch)) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert BatchOrder(10, 4, 2, 8).batch(0) != order.batch(0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_schedule_warms_up_and_decays(schedule: Any, expected: list[float]) -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=2, schedule=schedule)
    assert [learning_rate(config, step, 6) for step in range(6)] == pytest.approx(expected, abs=1e-4)


def test_training_lowers_the_loss_and_says_so_everywhere(world: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int, dict[str, float]]] = []
    job = make_job(tmp_path, *world, epochs=8, learning_rate=3e-5, batch_groups=7)
    result = train(job, report=lambda step, steps, found: seen.append((step, steps, dict(found))))
    assert result.steps == 16
    assert [step for step, _, _ in seen] == list(range(1, 17))
    assert result.metrics["distance"] < 0.6 * (seen[0][2]["distance"] + seen[1][2]["distance"]) / 2
    assert result.metrics["groups"] == 14
    wanted = {
        "loss",
        "distance",
        "ess",
        "grad_norm",
        "learning_rate",
        "seconds",
        "tokens_per_second",
        "peak_memory_bytes",
    }
    assert wanted <= seen[-1][2].keys()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert lines[-1]["loss"] == seen[-1][2]["loss"]
    tokens = sum(group.tokens.packed_tokens for group in load_groups(job.groups)[0])
    assert sum(line["tokens"] for line in lines) == result.metrics["tokens"] == 8 * tokens
    plain = [value for value in result.metrics.values() if isinstance(value, int | float)]
    assert len(plain) > 5
    assert not any(math.isnan(value) for value in plain)


def test_mfu_counts_what_the_method_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mfu" not in numbers.speed(tokens=100, seconds=2.0, flops_per_token=600.0, world=1)
    monkeypatch.setattr(numbers, "_peak_flops", lambda: 1e5)
    full, lora = numbers.flops_per_token(100, 100), numbers.flops_per_token(110, 10)
    assert (full, lora) == (600.0, 460.0)  # forward 2, gradient of activations 2, of trained weights 2
    found = numbers.speed(tokens=100, seconds=2.0, flops_per_token=full, world=3)
    assert found["mfu"] == pytest.approx(0.1)
    assert found["tokens_per_second"] == 50.0


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


def test_bfloat16_updates_add_up_in_float32_masters(world: tuple[Path, Path], tmp_path: Path) -> None:
    """Updates of 1e-6 vanish in bfloat16 weights of 0.05; in the masters they add up."""
    job = make_job(tmp_path, *world, dtype="bfloat16", learning_rate=1e-6, epochs=1)
    groups = [group.tokens for group in load_groups(job.groups)[0]]
    policy = load_policy(job, groups)
    engine = SingleEngine(policy, job.config)
    masters = {name: tensor.clone() for name, tensor in engine.state() if name.startswith("weight/")}
    for _ in range(3):
        engine.backward(sum(weight.sum() for weight in policy.trained().values()), last=True)  # type: ignore[arg-type]
        engine.step(1e-6)
    for name, tensor in engine.state():
        if name.startswith("weight/"):
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(masters[name] - tensor, torch.full_like(tensor, 3e-6), atol=3e-7, rtol=0)


def _tampered(part: Path, target: Path, group: str, change: Any) -> Path:
    rows = pq.read_table(part).to_pylist()
    for row in rows:
        if row["group_id"] == group:
            change(row)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(part)), target)
    return target


def _shift(*keys: str, by: float) -> Any:
    def change(row: dict[str, Any]) -> None:
        for key in keys:
            row[key][-1] += by

    return change


def test_oracle_names_the_group_whose_log_p_start_is_not_the_policys(world: tuple[Path, Path], tmp_path: Path) -> None:
    part = _tampered(world[1], tmp_path / "part.parquet", "g008", _shift("log_q", "log_p_start", by=2.0))
    last = len(next(group for group in load_groups((part,))[0] if group.group_id == "g008").log_q) - 1
    with pytest.raises(CaptureError, match=rf"group g008, valid candidate {last}: stored") as caught:
        train(make_job(tmp_path, world[0], part))
    assert not (tmp_path / "model").exists()
    assert "log 3" in str(caught.value)


def test_oracle_refuses_small_drift_that_plain_sampling_cannot_have(world: tuple[Path, Path], tmp_path: Path) -> None:
    """0.2 nats of one candidate pass the two gates, but then b is not 1/N."""
    part = _tampered(world[1], tmp_path / "part.parquet", "g008", _shift("log_q", "log_p_start", by=0.2))
    with pytest.raises(CaptureError, match=r"group g008: the distance is .* off log N - H\(ws\)"):
        train(make_job(tmp_path, world[0], part))


def test_oracle_refuses_a_log_q_that_is_not_log_p_start_at_temperature_one(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    part = _tampered(world[1], tmp_path / "part.parquet", "g008", _shift("log_q", by=0.01))
    with pytest.raises(CaptureError, match="plain sampling stores one number twice"):
        train(make_job(tmp_path, world[0], part))
    job = make_job(tmp_path, world[0], part)
    train(replace(job, generate=GenerateConfig(temperature=0.9)))  # there they are two numbers


def test_oracle_reports_the_largest_drift(world: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = train(make_job(tmp_path, *world, token_budget=64)).metrics
    assert 0 < metrics["oracle_max_drift"] < 1e-4
    assert metrics["oracle_token_drift"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["oracle_distance_error"] < 1e-4


def test_non_finite_loss_names_step_and_groups(world: tuple[Path, Path], tmp_path: Path) -> None:
    job = make_job(tmp_path, *world, optimizer="sgd", learning_rate=1e30, clip_norm=0.0)
    second = [load_groups(job.groups)[0][index].group_id for index in BatchOrder(14, 4, 1, job.seed).batch(1)]
    with pytest.raises(NonFiniteError, match=f"step 2, batch of groups {', '.join(second)}: the loss of group"):
        train(job)
    assert not job.output.exists()


def test_groups_without_two_valid_candidates_are_dropped_and_counted(world: tuple[Path, Path], tmp_path: Path) -> None:
    def drop(row: dict[str, Any]) -> None:
        row["valid"] = [False] * (len(row["valid"]) - 1) + [True]

    part = _tampered(world[1], tmp_path / "part.parquet", "g001", drop)
    groups, dropped = load_groups((part,))
    assert (len(groups), dropped) == (13, 1)
    whole = pq.read_table(part).to_pylist()
    for group in groups:
        row = next(row for row in whole if row["group_id"] == group.group_id)
        kept = [tuple(ids) for ids, valid in zip(row["responses"], row["valid"], strict=True) if valid]
        assert list(group.tokens.responses) == kept
        assert sum(map(math.exp, group.log_ws)) == pytest.approx(1)
    assert train(make_job(tmp_path, world[0], part)).metrics["dropped_groups"] == 1


def test_unusable_groups_are_refused_by_name(world: tuple[Path, Path], tmp_path: Path) -> None:
    part = tmp_path / "part.parquet"
    with pytest.raises(DataError, match=r"g002: the target weights .* sum to"):
        load_groups((_tampered(world[1], part, "g002", _shift("log_ws", by=1.0)),))
    with pytest.raises(NonFiniteError, match=r"g002: log_q is"):
        load_groups((_tampered(world[1], part, "g002", _shift("log_q", by=math.nan)),))
    part.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"part\.parquet: no readable part"):
        load_groups((part,))


def test_only_the_deepspeed_engine_imports_deepspeed_and_only_when_called() -> None:
    """Its import is slow, and prints; one process needs neither."""
    for path in Path("steerlm_core").rglob("*.py"):
        at_top = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not any("deepspeed" in line for line in at_top), path
        assert "import deepspeed" not in path.read_text() or path.name == "deepspeed_engine.py", path


def test_the_switch_that_keeps_deepspeed_from_compiling_still_exists() -> None:
    """`start_processes` flips a private name: a new version has to be looked at first."""
    import deepspeed

    assert deepspeed.__version__.split("+")[0] == "0.19.8"
    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__


def test_launch_does_what_the_environment_asks(world: tuple[Path, Path], tmp_path: Path) -> None:
    many, single = (make_job(tmp_path, *world, engine=engine, processes=4) for engine in ("deepspeed", "single"))
    child = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "PET_NNODES": "2"}
    pod = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}
    assert torchrun_command(child, many, ["job"]) is None
    assert torchrun_command({}, single, ["job"]) is None
    tail = ["-m", "steerlm_core.training.launch", "job"]
    start = [sys.executable, "-m", "torch.distributed.run"]
    assert torchrun_command(pod, many, ["job"]) == start + tail
    assert torchrun_command({}, many, ["job"]) == [*start, "--standalone", "--nproc-per-node", "4", *tail]
    with pytest.raises(ConfigError, match="PET_NNODES=2"):
        torchrun_command(pod, single, ["job"])
    kept = torchrun_environment(pod, "/extensions")
    assert kept == {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "8",
        "PET_NODE_RANK": "1",
        "TORCH_EXTENSIONS_DIR": "/extensions",
    }


def test_job_survives_its_json(world: tuple[Path, Path], tmp_path: Path) -> None:
    job = make_job(tmp_path, *world, lora={"rank": 3}, betas=(0.8, 0.9), dtype="bfloat16")
    assert TrainJob.from_json(job.to_json()) == job


def test_two_processes_under_zero_3_train_to_the_same_weights(world: tuple[Path, Path], tmp_path: Path) -> None:
    """Uneven groups, two passes, gradient clipping, numbers and result of the child; no compiled extension."""
    alone = make_job(tmp_path / "alone", *world, clip_norm=25.0)
    train(alone)
    job = make_job(
        tmp_path / "many", *world, clip_norm=25.0, token_budget=64, engine="deepspeed", zero_stage=3, processes=2
    )
    steps: list[int] = []
    result = run_torchrun(job, report=lambda step, total, found: steps.append(step))
    assert steps == [1, 2, 3, 4]
    assert result.steps == 4
    assert result.metrics["groups"] == 14
    assert change(weights(job.output), weights(alone.output), weights(world[0])) < 1e-3
    assert "shm_comm" not in (tmp_path / "many" / "torchrun.log").read_text()
