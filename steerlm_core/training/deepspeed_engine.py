"""The policy under DeepSpeed: ZeRO 0 to 3 over the processes that torchrun started.

DeepSpeed averages gradients over ranks, so a rank's share of the loss is multiplied by their number.
How many passes a step has changes from step to step, so the loop says which is the last.

State leaves and enters whole, weight by weight, so that a checkpoint knows nothing of the number of
ranks. DeepSpeed keeps float32 weights and moments in one of three ways, `_Whole`, `_Fragments`, `_Partitions`.

Whatever a rank does here, all do, in the same order: nearly every method communicates.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from steerlm_core.models.groups import TokenGroup
from steerlm_core.training.engines import MOMENTS, Entries, Lookup, build_optimizer, set_learning_rate
from steerlm_core.training.job import TrainJob
from steerlm_core.training.policy import Policy

_log = logging.getLogger("steerlm.training")

_ALWAYS_WHOLE = 100_000  # parameters of fewer elements than this are not cut up between uses (DeepSpeed's default)


def start_processes() -> torch.device:
    """Join the process group that torchrun's environment describes; return this rank's device."""
    import deepspeed

    # DeepSpeed 0.19.8 would compile a shared-memory op in C++ at this point, for minutes, under a lock
    # that a killed job leaves behind. The name is private: the version is pinned and a test watches it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo")
    return device


class DeepSpeedEngine:
    """One rank of many; see `Engine`."""

    def __init__(self, policy: Policy, job: TrainJob, device: torch.device) -> None:
        """Take over a policy; `start_processes` comes first."""
        import deepspeed

        config = job.config
        self.device, self.rank, self.world = device, dist.get_rank(), dist.get_world_size()
        self._names = list(policy.trained())
        self._moments = MOMENTS[config.optimizer]
        self._module = policy
        self._base = build_optimizer(config, list(policy.trained().values()))
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=policy, optimizer=self._base, config=settings(job, device), dist_init_required=False
        )
        self._store = _store(self._engine, self._optimizer, self._base)

    def forward(self, groups: Sequence[TokenGroup]) -> Tensor:
        """See `Engine`."""
        log_p: Tensor = self._engine(groups)
        return log_p

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Engine`."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.world)

    def step(self, learning_rate: float) -> float:
        """See `Engine`."""
        set_learning_rate(self._base, learning_rate)
        norm = self._store.norm_before_step()
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def total(self, values: Tensor) -> Tensor:
        """See `Engine`."""
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def share(self, value: Any) -> Any:
        """See `Engine`."""
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def spread(self, tensor: Tensor | None) -> Tensor:
        """See `Engine`."""
        shape, dtype = self.share(None if tensor is None else (tensor.shape, tensor.dtype))
        buffer = torch.empty(shape, dtype=dtype, device=self.device) if tensor is None else tensor.to(self.device)
        dist.broadcast(buffer, 0)
        return buffer

    def state(self) -> Entries:
        """See `Engine`."""
        for name, weight in self._trained():
            yield f"weight/{name}", self._store.read(weight, None).cpu()
            for moment in self._moments:
                yield f"{moment}/{name}", self._store.read(weight, moment).cpu()

    def restore(self, lookup: Lookup, updates: int) -> None:
        """See `Engine`."""
        self._store.prepare(self._moments, updates)
        for name, weight in self._trained():
            self._store.write(weight, None, lookup(f"weight/{name}"))
            for moment in self._moments:
                self._store.write(weight, moment, lookup(f"{moment}/{name}"))

    def weights(self) -> Entries:
        """See `Engine`."""
        import deepspeed

        for name, weight in self._trained():
            with deepspeed.zero.GatheredParameters([weight]):
                yield name, weight.detach().clone()

    def close(self) -> None:
        """See `Engine`."""
        self._engine.destroy()

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        weights = dict(self._module.model.named_parameters())
        yield from ((name, weights[name]) for name in self._names)


def settings(job: TrainJob, device: torch.device) -> dict[str, Any]:
    """Return DeepSpeed's own configuration of a job."""
    config, low = job.config, job.dtype == "bfloat16"
    stage: int = config.zero_stage
    if low and stage == 0:
        _log.warning(
            "train.zero_stage 0 in bfloat16 would sum gradients in bfloat16; stage 1 is used, as exact as float32"
        )
        stage = 1
    zero: dict[str, Any] = {"stage": stage, "stage3_param_persistence_threshold": _ALWAYS_WHOLE}
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device.type == "cuda"}
    found: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed's own counters only: the loop decides what a pass holds
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # SGD
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's is compiled in C++ on first use
        "bf16": {"enabled": low},
    }
    if low:
        found["data_types"] = {"grad_accum_dtype": "fp32"}
    return found


class _Store(Protocol):
    """Where DeepSpeed keeps the float32 weights and moments of a parameter; `moment` None is the weight."""

    def prepare(self, moments: Sequence[str], updates: int) -> None:
        """Make room for the moments, as after `updates` steps."""

    def read(self, weight: nn.Parameter, moment: str | None) -> Tensor:
        """Return the whole of it, on every rank."""

    def write(self, weight: nn.Parameter, moment: str | None, value: Tensor) -> None:
        """Set it from the whole, on every rank."""

    def norm_before_step(self) -> float | None:
        """Return the gradient's norm where DeepSpeed's step does not tell it."""


def _store(engine: Any, optimizer: Any, base: torch.optim.Optimizer) -> _Store:
    if engine.zero_optimization_stage() == 3:
        return _Partitions(optimizer, base)
    return _Fragments(optimizer, base) if hasattr(optimizer, "_link_all_hp_params") else _Whole(base)


def _make_room(base: torch.optim.Optimizer, kept: Iterable[Tensor], moments: Sequence[str], updates: int) -> None:
    """Give every tensor that the optimizer keeps the state that it has after `updates` steps, all moments zero."""
    for tensor in kept:
        zeros = {moment: torch.zeros_like(tensor.detach()) for moment in moments}
        base.state[tensor] = {"step": torch.tensor(float(updates)), **zeros} if moments else {}


def _parameters(base: torch.optim.Optimizer) -> list[Tensor]:
    return [tensor for group in base.param_groups for tensor in group["params"]]


class _Whole:
    """ZeRO 0: every rank keeps all, in torch's own optimizer."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self._base = base

    def prepare(self, moments: Sequence[str], updates: int) -> None:
        _make_room(self._base, _parameters(self._base), moments, updates)

    def read(self, weight: nn.Parameter, moment: str | None) -> Tensor:
        return self._kept(weight, moment).detach()

    def write(self, weight: nn.Parameter, moment: str | None, value: Tensor) -> None:
        with torch.no_grad():
            self._kept(weight, moment).copy_(value)

    def norm_before_step(self) -> float | None:
        grads = [weight.grad for weight in _parameters(self._base)]
        return float(nn.utils.get_total_norm([grad for grad in grads if grad is not None]))

    def _kept(self, weight: nn.Parameter, moment: str | None) -> Tensor:
        kept: Tensor = weight if moment is None else self._base.state[weight][moment]
        return kept


class _Fragments:
    """ZeRO 1 and 2: this rank's stretch of one flat tensor; parameters know their fragment of it."""

    def __init__(self, optimizer: Any, base: torch.optim.Optimizer) -> None:
        self._optimizer, self._base = optimizer, base

    def prepare(self, moments: Sequence[str], updates: int) -> None:
        _make_room(self._base, _parameters(self._base), moments, updates)
        self._optimizer._lazy_init_hp_params_optimizer_state()

    def read(self, weight: Any, moment: str | None) -> Tensor:
        whole: Tensor = weight.get_full_hp_param(optim_state_key=moment)
        return whole

    def write(self, weight: Any, moment: str | None, value: Tensor) -> None:
        weight.set_full_hp_param(value, optim_state_key=moment)
        if moment is None:
            with torch.no_grad():
                weight.copy_(value)

    def norm_before_step(self) -> float | None:
        return None


class _Partitions:
    """ZeRO 3: this rank's slice of every parameter, the last one padded."""

    def __init__(self, optimizer: Any, base: torch.optim.Optimizer) -> None:
        self._optimizer, self._base = optimizer, base

    def prepare(self, moments: Sequence[str], updates: int) -> None:
        # Between steps the groups of the base optimizer are empty here.
        _make_room(self._base, self._optimizer.fp32_partitioned_groups_flat, moments, updates)

    def read(self, weight: Any, moment: str | None) -> Tensor:
        whole: Tensor = weight._z3_optimizer.get_full_hp_param(weight, moment)
        return whole

    def write(self, weight: Any, moment: str | None, value: Tensor) -> None:
        size = weight.ds_tensor.numel()
        flat = nn.functional.pad(value.flatten(), (0, size * dist.get_world_size() - value.numel()))
        mine = flat.narrow(0, size * dist.get_rank(), size)
        weight._z3_optimizer.set_local_hp_param(mine, weight, moment)
        if moment is None:
            self._write_whole(weight, value)

    def norm_before_step(self) -> float | None:
        return None

    @staticmethod
    def _write_whole(weight: nn.Parameter, value: Tensor) -> None:
        import deepspeed

        with torch.no_grad(), deepspeed.zero.GatheredParameters([weight], modifier_rank=0):
            if dist.get_rank() == 0:
                weight.copy_(value)
