"""Training one iteration, from the stored groups to the saved model.

    groups, policy ─► last checkpoint or step-0 oracle ─► steps ─► merged model
                                                           │
                        batch ─► plan ─► gradient ─► sums over ranks ─► update ─► numbers ─► checkpoint

`train` is the same in one process and in each of many; only the engine differs.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerlm_core import layout
from steerlm_core.errors import NonFiniteError, SteerLMError
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.packing import row_tokens
from steerlm_core.training.checkpoints import Checkpoint, Writer, latest, random_state, set_random_state
from steerlm_core.training.data import BatchOrder, load_groups
from steerlm_core.training.engines import Engine, SingleEngine
from steerlm_core.training.gradient import NUMBERS, accumulate
from steerlm_core.training.history import History
from steerlm_core.training.job import TrainGroup, TrainingStoppedError, TrainJob, TrainReport, TrainResult
from steerlm_core.training.numbers import Recorder, flops_per_token, speed
from steerlm_core.training.oracle import check_step_zero
from steerlm_core.training.plan import plan_step
from steerlm_core.training.policy import Policy, assign, export, load_policy
from steerlm_core.training.schedule import learning_rate
from steerlm_core.training.stop import StopSignal

_log = logging.getLogger("steerlm.training")

_WAY_OUT = "The weights before this step are in the last checkpoint; lower train.learning_rate or look at these groups."


def train(job: TrainJob, *, model: PreTrainedModel | None = None, report: TrainReport | None = None) -> TrainResult:
    """Train the policy of a job on its groups, from the last checkpoint if there is one.

    Args:
        job: What to train, on what, and where to.
        model: The policy, where it is loaded already; it is trained in place.
        report: Receives the numbers of each step, on rank 0.

    Raises:
        CaptureError: The step-0 oracle fails: the policy does not repeat the stored log-probs.
        NonFiniteError: A loss or gradient is not finite; the message names the batch.
        ForeignOutputError: The checkpoint folder holds another job.
        TrainingStoppedError: SIGTERM came; a checkpoint has been written.
    """
    groups, dropped = load_groups(job.groups)
    if dropped:
        _log.warning("%d group(s) with fewer than two valid candidates are dropped, %d train", dropped, len(groups))
    tokens = [group.tokens for group in groups]
    device = _start(job)
    policy = load_policy(job, tokens, model)
    engine = _engine(policy, job, device)
    try:
        with StopSignal() as stop:
            result = _Run(job, engine, policy, groups, stop, report).run()
        _export(job, engine, policy, tokens)
    finally:
        engine.close()
    return TrainResult(result.steps, {**result.metrics, "groups": len(groups), "dropped_groups": dropped})


def _start(job: TrainJob) -> torch.device | None:
    """Join the other processes, before the model goes to a device."""
    if job.config.engine == "single":
        return None
    from steerlm_core.training.deepspeed_engine import start_processes

    return start_processes()


def _engine(policy: Policy, job: TrainJob, device: torch.device | None) -> Engine:
    if device is None:
        return SingleEngine(policy, job.config)
    from steerlm_core.training.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(policy, job, device)


def _export(job: TrainJob, engine: Engine, policy: Policy, tokens: Sequence[TokenGroup]) -> None:
    if job.config.engine == "single":
        export(policy, job)
        return
    weights = {name: weight.cpu() if engine.rank == 0 else weight for name, weight in engine.weights()}
    if engine.rank == 0:
        fresh = load_policy(job, tokens)
        assign(fresh, weights)
        export(fresh, job)
    engine.total(torch.zeros(1, device=engine.device))  # nobody leaves before the model is written


class _Run:
    """The loop of one training run."""

    def __init__(
        self,
        job: TrainJob,
        engine: Engine,
        policy: Policy,
        groups: Sequence[TrainGroup],
        stop: StopSignal,
        report: TrainReport | None,
    ) -> None:
        self._job, self._config, self._engine, self._groups, self._stop = job, job.config, engine, groups, stop
        self._layout = policy.layout
        self._flops = flops_per_token(*policy.sizes)
        self._order = BatchOrder(len(groups), job.config.batch_groups, job.config.epochs, job.seed)
        self._report = report
        self._oracle: dict[str, float] = {}
        self._sums: dict[str, float] = {}  # over the epoch so far
        self._history = History()
        self._saved_at = time.monotonic()
        self._checkpoint: dict[str, float] = {}  # what the next step says of one written before it

    def run(self) -> TrainResult:
        """Run the steps that are left."""
        self._say_what_is_cut()
        done = self._resume()
        steps = self._order.steps
        metrics = self._job.output.parent / layout.TRAINING_METRICS
        record = Recorder(metrics, done, steps, self._report) if self._leads else None
        for step in range(done, steps):
            numbers, stop, due = self._step(step)
            if record:
                record(step + 1, numbers)
            if due or stop:
                self._save(step + 1)
            if stop:
                raise TrainingStoppedError(
                    f"stopped by SIGTERM after step {step + 1} of {steps}; the checkpoint in {self._job.checkpoints} "
                    "has everything. The same command continues from it."
                )
        counted = self._sums.pop("counted", 0.0)
        means = {key: value / counted for key, value in self._sums.items()}
        return TrainResult(steps, {**self._oracle, **means, **self._history.metrics()})

    @property
    def _leads(self) -> bool:
        return self._engine.rank == 0

    def _say_what_is_cut(self) -> None:
        costs = [row_tokens(group.tokens, self._layout) for group in self._groups]
        large = sum(cost > self._config.token_budget for cost in costs)
        if large and self._leads:
            _log.info(
                "%d of %d groups exceed train.token_budget %d (the largest has %d tokens): they are trained in two "
                "passes over their parts, with the same gradient, at the cost of one more forward",
                large, len(costs), self._config.token_budget, max(costs),
            )  # fmt: skip

    def _resume(self) -> int:
        """Continue from the last checkpoint, or check the untouched policy; return the steps done."""
        found = self._found()
        if found is None:
            self._oracle = check_step_zero(
                self._engine, self._groups, self._job.generate, self._config.token_budget, self._layout, self._job.dtype
            )
            return 0
        checkpoint, state, names = found

        def read(name: str) -> Tensor:
            return self._engine.spread(None if checkpoint is None else checkpoint.tensor(name))

        self._oracle, self._sums = dict(state["oracle"]), dict(state["sums"])
        self._history = History(**state["history"])
        self._engine.restore(read, int(state["step"]))
        for name in names:
            if name.startswith("random/"):
                set_random_state(name, read(name))
        return int(state["step"])

    def _found(self) -> tuple[Checkpoint | None, Mapping[str, Any], Sequence[str]] | None:
        """Let rank 0 look for a checkpoint; every rank gets its state and names, or raises the same error."""
        checkpoint, answer = None, None  # type: Checkpoint | None, Any
        if self._leads:
            try:
                checkpoint = latest(self._job.checkpoints, self._job.digest)
                answer = checkpoint and (checkpoint.state, list(checkpoint.where))
            except SteerLMError as error:
                answer = error
        answer = self._engine.share(answer)
        if isinstance(answer, SteerLMError):
            raise answer
        if checkpoint is not None:
            _log.info("continuing from %s", checkpoint.folder)
        return answer and (checkpoint, *answer)

    def _step(self, step: int) -> tuple[dict[str, float], bool, bool]:
        """Make one update; return its numbers, whether to stop, whether a checkpoint is due."""
        started, checkpoint = time.monotonic(), self._checkpoint
        self._checkpoint = {}
        batch = [self._groups[index] for index in self._order.batch(step)]
        tokens = [group.tokens for group in batch]
        plan = plan_step(tokens, self._engine.world, self._config.token_budget, self._layout)[self._engine.rank]
        table, stop, due = self._totals(accumulate(self._engine, batch, plan))
        self._refuse_non_finite(table, batch, step)
        rate = learning_rate(self._config, step, self._order.steps)
        norm = self._engine.step(rate)
        if not math.isfinite(norm):
            raise NonFiniteError(f"{_where(step, batch)}: the gradient norm is {norm}. {_WAY_OUT}")
        means = dict(zip(NUMBERS, table.mean(0).tolist(), strict=True)) | {"grad_norm": norm}
        self._add(step, means, len(batch))
        count = sum(group.packed_tokens for group in tokens)
        self._history.add({**means, "learning_rate": rate}, count)
        measured = speed(count, time.monotonic() - started, self._flops, self._engine.world)
        return {**means, "learning_rate": rate, **measured, **checkpoint}, stop, due

    def _totals(self, numbers: Tensor) -> tuple[Tensor, bool, bool]:
        """Sum over ranks, in one message: the numbers of every group, and what any rank wants."""
        due = self._leads and time.monotonic() - self._saved_at >= self._config.checkpoint_seconds
        wishes = torch.tensor([float(self._stop.came), float(due)], dtype=numbers.dtype, device=numbers.device)
        total = self._engine.total(torch.cat([numbers.flatten(), wishes])).cpu()
        return total[:-2].view(numbers.shape), bool(total[-2] > 0), bool(total[-1] > 0)

    def _refuse_non_finite(self, table: Tensor, batch: Sequence[TrainGroup], step: int) -> None:
        bad = [group.group_id for group, row in zip(batch, table, strict=True) if not bool(row.isfinite().all())]
        if bad:
            names = ", ".join(bad)
            raise NonFiniteError(f"{_where(step, batch)}: the loss of group(s) {names} is not finite. {_WAY_OUT}")

    def _add(self, step: int, means: dict[str, float], groups: int) -> None:
        if step % self._order.steps_per_epoch == 0:
            self._sums = {}
        for key, value in {**means, "counted": 1.0}.items():
            self._sums[key] = self._sums.get(key, 0.0) + groups * value

    def _save(self, done: int) -> None:
        started = time.monotonic()
        job, keep = self._job, self._config.keep_checkpoints
        writer = Writer(job.checkpoints, job.digest, done, keep) if self._leads else None
        for name, tensor in self._engine.state():
            if writer:
                writer.add(name, tensor)
        if writer:
            for name, tensor in random_state().items():
                writer.add(name, tensor)
            writer.commit({"step": done, "oracle": self._oracle, "sums": self._sums, "history": self._history.state()})
            self._checkpoint = {"checkpoint_seconds": time.monotonic() - started}
        self._saved_at = time.monotonic()


def _where(step: int, batch: Sequence[TrainGroup]) -> str:
    return f"step {step + 1}, batch of groups {', '.join(group.group_id for group in batch)}"
