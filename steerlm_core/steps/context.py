"""What a step is given: protocols only, so that a step knows neither S3 nor Kubernetes nor a terminal.

Only `steerlm_core.run` builds a `StepContext`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from steerlm_core import layout
from steerlm_core.config import RunConfig, local_path
from steerlm_core.errors import ConfigError, RunStateError
from steerlm_core.store.manifest import Manifest, Part

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from steerlm_core.models.attribute_model import AttributeModel


class Documents(Protocol):
    """The small objects of a run root. Keys are relative to it, with '/' between their parts."""

    def exists(self, key: str) -> bool:
        """Whether an object of this key exists."""

    def document(self, key: str) -> dict[str, Any]:
        """Read a sealed document."""

    def read(self, key: str) -> bytes:
        """The object's bytes."""

    def put(self, key: str, data: bytes) -> None:
        """Write an object in one atomic put, replacing an older one."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another stands there, atomically; False where one does."""


class Store(Documents, Protocol):
    """One run root, with its tables and models: all that steps need of it."""

    @property
    def root(self) -> str:
        """The root as the user gave it."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""

    def write_table(self, prefix: str, number: int, table: pa.Table, split: str) -> Part:
        """Write one Parquet part; its key carries a hash of its content."""

    def read_table(self, part: Part) -> pa.Table:
        """Read one part, verified against its sha256."""

    def local_file(self, part: Part) -> Path:
        """A local, verified copy of one part."""

    def write_folder(self, prefix: str, folder: Path) -> list[Part]:
        """Store every file of a folder below a prefix that carries a hash of their content."""

    def local_folder(self, manifest: Manifest) -> Path:
        """A local, verified copy of a folder written by `write_folder`."""

    def work_folder(self, key: str) -> AbstractContextManager[Path]:
        """A local folder for unfinished work, whose `checkpoints` survive the process where the root does."""


class Events(Protocol):
    """Where a step says what it is doing. Nothing that it raises ever reaches a step."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """So many items of all are done."""

    def metric(self, **values: float) -> None:
        """Named numbers."""

    def warning(self, message: str) -> None:
        """Something that a person should know."""


class Models(Protocol):
    """Loads models, and keeps those that the next step of the same process will want."""

    def causal_lm(self, folder: Path, dtype: str) -> PreTrainedModel:
        """A causal language model in evaluation mode."""

    def tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        """A tokenizer."""

    def attribute_model(self, folder: Path) -> AttributeModel:
        """An attribute model in evaluation mode."""


class TrainBackend(Protocol):
    """Where training happens: in this process, in processes of this machine, in a PyTorchJob."""

    def train(self, context: StepContext) -> Manifest:
        """Train the iteration of `context`, and leave `train/manifest.json` and the model committed."""


@dataclass(frozen=True)
class Stage:
    """One pass of generate → label → score_prior → weigh: an iteration, or the confirmation.

    Attributes:
        prefix: Where its outputs stand, relative to the root.
        policy: Key of the manifest of the policy that is sampled from.
        splits: The splits of the prompt set that it handles.
        draw: Names its random draws; no two stages of a run share one.
    """

    prefix: str
    policy: str
    splits: tuple[str, ...]
    draw: int


@dataclass(frozen=True)
class Shard:
    """One of several processes that share a step: it does every `count`-th part.

    As text it is "0/2", the first of two. Kubeflow hands that to a step: what it iterates over arrives as text.

    Attributes:
        index: From 0.
        count: Shards of the step.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a shard's text.

        Raises:
            ConfigError: It is none, or names a shard that does not exist.
        """
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if found and int(found[1]) < int(found[2]):
            return cls(int(found[1]), int(found[2]))
        raise ConfigError(
            f"shard '{text}': give INDEX/COUNT, counted from 0: 0/2 and 1/2 are the two halves of a step."
        )

    def __str__(self) -> str:
        """Return its text."""
        return f"{self.index}/{self.count}"

    def does(self, number: int) -> bool:
        """Whether part `number` is this shard's."""
        return number % self.count == self.index


@dataclass(frozen=True)
class StepContext:
    """Everything that a step may use.

    Attributes:
        train_backend: Who trains; None where nobody is to, as in a pod that is itself part of a backend.
        shard: Which of the step's parts are this process's.
        check_lease: Raises LeaseLostError where another runner has taken over the step; called before a commit.
        fetch: Brings a file or a folder that the user named here; returns its local path.
    """

    run_id: str
    config: RunConfig
    store: Store
    events: Events
    models: Models
    scratch: Path
    train_backend: TrainBackend | None = None
    iteration: int = 0
    stage: Stage | None = None
    shard: Shard = Shard()
    check_lease: Callable[[], None] = lambda: None
    fetch: Callable[[str], Path] = local_path

    @property
    def here(self) -> Stage:
        """The stage; it is set for every step of an iteration and of the confirmation."""
        assert self.stage is not None
        return self.stage

    def at(self, stage: Stage, iteration: int = 0) -> StepContext:
        """The same context at another stage."""
        return replace(self, stage=stage, iteration=iteration)

    def manifest(self, prefix: str) -> Manifest:
        """Read the manifest of the output at `prefix`.

        Raises:
            RunStateError: It is missing, damaged, or of another run.
        """
        key, root = layout.manifest(prefix), self.store.root
        if not self.store.exists(key):
            raise RunStateError(
                f"{root}/{key}: missing; the step before has not finished. `steerlm resume {root}` does."
            )
        try:
            manifest = Manifest.model_validate(self.document(key))
        except ValidationError as error:
            raise RunStateError(
                f"{root}/{key}: not a manifest of this version ({error.error_count()} errors)."
            ) from error
        if manifest.run_id != self.run_id:
            raise RunStateError(
                f"{root}/{key}: belongs to run '{manifest.run_id}', this is run '{self.run_id}'. "
                "Something was copied between run directories; remove it."
            )
        return manifest

    def tables(self, prefix: str, splits: Iterable[str] = ()) -> Iterable[tuple[Part, pa.Table]]:
        """Read an output's parts one by one, of the given splits or all."""
        wanted = set(splits)
        for part in self.manifest(prefix).parts:
            if not wanted or part.split in wanted:
                yield part, self.store.read_table(part)

    def document(self, key: str) -> dict[str, Any]:
        """Read a sealed document."""
        return self.store.document(key)
