"""Checkpoints: written beside, renamed into place, verified before a byte is used.

    step-00000120/
      tensors-00000.safetensors …   weights, optimizer moments, random state: whole, free of the number of ranks
      state.json                    step and all else that is small
      manifest.json                 sizes and sha256 of the others; written last

A checkpoint is loaded only when its manifest stands and every byte agrees with it; else the one
before is taken. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlm_core import layout
from steerlm_core.config import digest
from steerlm_core.errors import ForeignOutputError

_log = logging.getLogger("steerlm.training")

_SHARD_BYTES = 2 << 30  # bounds the memory that writing takes
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Attributes:
        folder: Where it lies.
        state: What `state.json` holds.
        where: File of every tensor, by name.
    """

    folder: Path
    state: Mapping[str, Any]
    where: Mapping[str, str]

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        with safe_open(self.folder / self.where[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


class Writer:
    """A checkpoint in the making; nothing of it exists for a reader before `commit`."""

    def __init__(self, folder: Path, job: str, step: int, keep: int) -> None:
        """Start an unfinished checkpoint beside the others, and clear what earlier attempts left."""
        for left in folder.glob(f"{layout.UNFINISHED_CHECKPOINT}*"):
            shutil.rmtree(left)
        self._folder, self._job, self._step, self._keep = folder, job, step, keep
        self._scratch = folder / f"{layout.UNFINISHED_CHECKPOINT}{layout.checkpoint(step)}"
        self._scratch.mkdir(parents=True)
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._where: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Add one tensor."""
        self._pending[name] = tensor.contiguous()
        self._pending_bytes += tensor.nbytes
        if self._pending_bytes >= _SHARD_BYTES:
            self._flush()

    def commit(self, state: Mapping[str, Any]) -> Path:
        """Write the state and the manifest, make the checkpoint visible, and drop the oldest."""
        self._flush()
        (self._scratch / "state.json").write_text(json.dumps(dict(state), sort_keys=True))
        files = {path.name: _fingerprint(path) for path in sorted(self._scratch.iterdir())}
        manifest: dict[str, Any] = {"format": _FORMAT, "job": self._job, "files": files, "tensors": self._where}
        manifest["sha256"] = digest(manifest)
        (self._scratch / layout.MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1))
        for path in (*self._scratch.iterdir(), self._scratch):
            _sync(path)
        final = self._folder / layout.checkpoint(self._step)
        if final.exists():
            shutil.rmtree(final)
        self._scratch.rename(final)
        _sync(self._folder)
        for old in _folders(self._folder)[self._keep :]:
            shutil.rmtree(old)
        return final

    def _flush(self) -> None:
        if not self._pending:
            return
        file = f"tensors-{len(set(self._where.values())):05d}.safetensors"
        save_file(self._pending, self._scratch / file)
        self._where |= dict.fromkeys(self._pending, file)
        self._pending, self._pending_bytes = {}, 0


def latest(folder: Path, job: str) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None where there is none.

    Raises:
        ForeignOutputError: The newest whole checkpoint is of another job than that of digest `job`.
    """
    for candidate in _folders(folder):
        try:
            return _verified(candidate, job)
        except (OSError, ValueError, KeyError) as error:
            _log.warning("checkpoint %s is not whole (%s); taking the one before", candidate, error)
    return None


def _verified(folder: Path, job: str) -> Checkpoint:
    manifest = json.loads((folder / layout.MANIFEST).read_text())
    if manifest.pop("sha256") != digest(manifest):
        raise ValueError(f"{layout.MANIFEST} is not what was written")
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format {manifest['format']}, this version reads {_FORMAT}")
    for name, expected in manifest["files"].items():
        if _fingerprint(folder / name) != expected:
            raise ValueError(f"{name} is not what was written")
    if manifest["job"] != job:
        raise ForeignOutputError(
            f"{folder}: this checkpoint is of another training job (digest {manifest['job'][:12]}, now {job[:12]}). "
            "Restore the configuration and inputs that it was made with, or give the job an empty checkpoint folder."
        )
    return Checkpoint(folder, json.loads((folder / "state.json").read_text()), manifest["tensors"])


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's random generators, by name."""
    state = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random/cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(name: str, state: Tensor) -> None:
    """Set a random generator as `random_state` found it; one that this machine lacks is left out."""
    if name == "random/cpu":
        torch.set_rng_state(state.cpu())
    elif torch.cuda.is_available():
        torch.cuda.set_rng_state(state.cpu())


def _folders(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, the newest first."""
    return sorted(folder.glob(f"{layout.CHECKPOINT}*"), reverse=True) if folder.is_dir() else []


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
