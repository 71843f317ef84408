"""What runs the policy: one small interface, and its plain implementation in a single process.

The loop knows nothing of processes. It hands an engine the passes of its own rank and a loss whose sum
over all passes of all ranks is the loss of the global batch; the engine's job is that the gradient is
that of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from steerlm_core.config import TrainConfig
from steerlm_core.models.groups import TokenGroup
from steerlm_core.training.policy import Policy

Entries = Iterator[tuple[str, Tensor]]
Lookup = Callable[[str], Tensor]

# Which state each optimizer keeps of a weight; of AdamW also the number of updates, `step`.
MOMENTS: dict[str, tuple[str, ...]] = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ()}


class Engine(Protocol):
    """Forward, backward, update and state of the policy over all ranks."""

    rank: int
    world: int
    device: torch.device

    def forward(self, groups: Sequence[TokenGroup]) -> Tensor:
        """Return log Q of every response, [candidates]; with a graph where gradients are enabled."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of this rank's share of the loss; `last` marks the last pass of the step."""

    def step(self, learning_rate: float) -> float:
        """Clip and update; return the norm of the global gradient before clipping."""

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all ranks."""

    def share(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""

    def spread(self, tensor: Tensor | None) -> Tensor:
        """Return rank 0's tensor on every rank; the others pass None."""

    def state(self) -> Entries:
        """Yield weights and optimizer state, whole and on the CPU, in the same order on every rank."""

    def restore(self, lookup: Lookup, updates: int) -> None:
        """Take weights and optimizer state after `updates` steps from `lookup`, by the names of `state`."""

    def weights(self) -> Entries:
        """Yield the trained weights in the type of the forward pass, whole, on every rank."""

    def close(self) -> None:
        """Give back what the engine holds."""


def build_optimizer(config: TrainConfig, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the configured optimizer; its learning rate is set at every step."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(weights, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the next update."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


class SingleEngine:
    """One process. Weights below float32 get float32 masters, which gradients accumulate in."""

    rank, world = 0, 1

    def __init__(self, policy: Policy, config: TrainConfig) -> None:
        """Take over a policy where it lies."""
        self._policy, self._config = policy, config
        self._trained = policy.trained()
        self._masters = {name: _master(weight) for name, weight in self._trained.items()}
        self._optimizer = build_optimizer(config, list(self._masters.values()))
        self.device = next(policy.parameters()).device

    def forward(self, groups: Sequence[TokenGroup]) -> Tensor:
        """See `Engine`."""
        log_p: Tensor = self._policy(groups)
        return log_p

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Engine`."""
        loss.backward()
        for name, weight in self._trained.items():
            master = self._masters[name]
            if master is not weight and weight.grad is not None:
                grad = weight.grad.to(master.dtype)
                master.grad = grad if master.grad is None else master.grad.add_(grad)
                weight.grad = None

    def step(self, learning_rate: float) -> float:
        """See `Engine`."""
        limit = self._config.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(list(self._masters.values()), limit)
        set_learning_rate(self._optimizer, learning_rate)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._copy_masters()
        return float(norm)

    def total(self, values: Tensor) -> Tensor:
        """See `Engine`."""
        return values

    def share(self, value: Any) -> Any:
        """See `Engine`."""
        return value

    def spread(self, tensor: Tensor | None) -> Tensor:
        """See `Engine`."""
        assert tensor is not None
        return tensor

    def state(self) -> Entries:
        """See `Engine`."""
        for name, master in self._masters.items():
            yield f"weight/{name}", master.detach().cpu()
            for moment in MOMENTS[self._config.optimizer]:
                state = self._optimizer.state.get(master, {})
                yield f"{moment}/{name}", state.get(moment, torch.zeros_like(master)).cpu()

    def restore(self, lookup: Lookup, updates: int) -> None:
        """See `Engine`."""
        moments = MOMENTS[self._config.optimizer]
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(lookup(f"weight/{name}"))
                if moments and updates:
                    state = {moment: lookup(f"{moment}/{name}").to(master) for moment in moments}
                    self._optimizer.state[master] = {"step": torch.tensor(float(updates)), **state}
        self._copy_masters()

    def weights(self) -> Entries:
        """See `Engine`."""
        yield from ((name, weight.detach()) for name, weight in self._trained.items())

    def close(self) -> None:
        """See `Engine`."""

    def _copy_masters(self) -> None:
        with torch.no_grad():
            for name, weight in self._trained.items():
                if self._masters[name] is not weight:
                    weight.copy_(self._masters[name])


def _master(weight: nn.Parameter) -> nn.Parameter:
    return weight if weight.dtype in (torch.float32, torch.float64) else nn.Parameter(weight.detach().float())
