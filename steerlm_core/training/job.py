"""What one training run is given and what it returns: all that crosses the seam to the engines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from steerlm_core.config import GenerateConfig, TrainConfig
from steerlm_core.errors import SteerLMError
from steerlm_core.models.groups import TokenGroup


@dataclass(frozen=True)
class TrainGroup:
    """One training group: only its valid candidates, in the order of their index.

    Attributes:
        group_id: Names the group in messages.
        tokens: Prompt and responses, as stored; never re-tokenised.
        log_q: log of the distribution really sampled from, summed over response tokens.
        log_p_start: log of the raw Q' at temperature 1.
        log_ws: log target weights; their exponentials sum to 1.
    """

    group_id: str
    tokens: TokenGroup
    log_q: tuple[float, ...]
    log_p_start: tuple[float, ...]
    log_ws: tuple[float, ...]


@dataclass(frozen=True)
class TrainJob:
    """Everything that one training run depends on; all paths are local.

    Attributes:
        policy: Folder of the model that training starts from, Q'.
        groups: Parquet parts of the training split (schema GROUPS), in order.
        output: Folder that receives the trained model (safetensors, tokenizer).
        checkpoints: Folder of checkpoints; a job that finds one there continues from it.
        config: The training section.
        generate: The generation section: the oracle needs temperature and gates.
        dtype: Type of the weights in the forward pass, as when logQ was re-scored.
        seed: Order of the groups and everything random derives from it.
        digest: Digest of all inputs; a checkpoint of another digest is refused.
    """

    policy: Path
    groups: tuple[Path, ...]
    output: Path
    checkpoints: Path
    config: TrainConfig
    generate: GenerateConfig
    dtype: str
    seed: int
    digest: str

    def to_json(self) -> str:
        """Return the job as text, for the process that will run it."""
        return json.dumps(
            {
                "policy": str(self.policy),
                "groups": [str(part) for part in self.groups],
                "output": str(self.output),
                "checkpoints": str(self.checkpoints),
                "config": self.config.model_dump(mode="json"),
                "generate": self.generate.model_dump(mode="json"),
                "dtype": self.dtype,
                "seed": self.seed,
                "digest": self.digest,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> TrainJob:
        """Read a job written by `to_json`."""
        values = json.loads(text)
        values |= {key: Path(values[key]) for key in ("policy", "output", "checkpoints")}
        values["groups"] = tuple(Path(part) for part in values["groups"])
        values["config"] = TrainConfig.model_validate(values["config"])
        values["generate"] = GenerateConfig.model_validate(values["generate"])
        return cls(**values)


class TrainingStoppedError(SteerLMError):
    """Training was asked to stop (SIGTERM) and has left a checkpoint; the same job continues from it."""


class TrainingLostError(SteerLMError):
    """A training process has been killed, or has lost its peers; the same job continues from its checkpoint."""


@dataclass(frozen=True)
class TrainResult:
    """What training reports when it has ended, free of times.

    Attributes:
        steps: Optimizer steps made.
        metrics: Means over the last epoch, what the oracle found, `tokens`, and `curve` (see `History.metrics`).
    """

    steps: int
    metrics: Mapping[str, Any] = field(default_factory=dict)


class TrainReport(Protocol):
    """Receives the numbers of each optimizer step: loss, distance, grad_norm, ess, tokens_per_second, …"""

    def __call__(self, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        """Called on rank 0 after each optimizer step."""
