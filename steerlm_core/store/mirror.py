"""Checkpoints of a training on this machine, kept in the run root while it goes on.

    <folder>/step-00000120/…  ─►  <prefix>/step-00000120-<holder>/…, then <prefix>/latest.json

A checkpoint appears by a rename, whole; its files are uploaded first, then `latest.json` names it,
and only then the one before is removed. Training checks every byte of what it loads itself.

A runner that stalled may wake up when another has long taken over, and two runners may write other bytes for the same
step. So everybody uploads to folders of their own, `latest.json` moves by a conditional put and never to an older step,
and only whoever has moved it removes the checkpoint that it named before. What a killed runner has uploaded in part,
gc removes once the model stands.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from steerlm_core import layout
from steerlm_core.errors import LeaseLostError, RunStateError, SteerLMError, StoreError
from steerlm_core.periodic import Periodic
from steerlm_core.store.sealed import seal

_LOOK_SECONDS = 0.5
_log = logging.getLogger(__name__)


class CheckpointStore(Protocol):
    """What the mirror needs of a run root."""

    def document_versioned(self, key: str) -> tuple[dict[str, Any], str] | None:
        """A sealed document and its version; None where there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Write unless one exists."""

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace that version."""

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a file."""

    def download(self, key: str, path: Path) -> None:
        """Write an object's bytes to a file; RunStateError where there is none."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects."""


class CheckpointMirror:
    """Brings the last checkpoint here on entry; afterwards uploads each new one, in a thread; on exit the last."""

    def __init__(self, store: CheckpointStore, prefix: str, folder: Path) -> None:
        """Name both places."""
        self._store, self._prefix, self._folder = store, prefix, folder
        self._mirrored = ""
        self._unusable = ""  # version of the `latest.json` whose checkpoint is not whole
        self._holder = uuid.uuid4().hex[:8]
        self._uploads = Periodic(self._upload_newest, _LOOK_SECONDS, "checkpoint mirror")

    def __enter__(self) -> CheckpointMirror:
        """Restore, and start to watch."""
        self._restore()
        self._uploads.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Upload what is new, unless another runner has taken over or the store is gone, and stop."""
        if isinstance(error, StoreError):  # an upload at work would hold the end up for minutes
            self._uploads.stop()
            return
        self._uploads.close()
        if not isinstance(error, LeaseLostError):
            self._upload_newest()

    @property
    def _latest(self) -> str:
        return layout.latest_checkpoint(self._prefix)

    def _restore(self) -> None:
        found = self._store.document_versioned(self._latest)
        if found is None:
            return
        latest, version = found
        step = layout.checkpoint_in(latest["name"])
        try:
            if not (self._folder / step).is_dir():
                self._download(latest["name"], latest["files"], self._folder / step)
        except RunStateError as error:  # another runner has removed a file meanwhile
            _log.warning("the last checkpoint is not whole, so training starts from the beginning: %s", error)
            self._unusable = version
            return
        self._mirrored = step

    def _download(self, checkpoint: str, files: list[str], folder: Path) -> None:
        unfinished = self._folder / f"{layout.UNFINISHED_CHECKPOINT}{checkpoint}"
        unfinished.mkdir(parents=True, exist_ok=True)
        for file in files:
            self._store.download(f"{self._prefix}/{checkpoint}/{file}", unfinished / file)
        unfinished.rename(folder)

    def _upload_newest(self) -> None:
        """Upload the newest checkpoint if it is new. Training goes on without, so a failure is said, not raised."""
        newest = max((path.name for path in self._folder.glob(f"{layout.CHECKPOINT}*")), default="")
        if newest <= self._mirrored:
            return
        try:
            self._upload(newest)
        except SteerLMError as error:
            _log.warning("checkpoint %s is not in the run root yet: %s", newest, error)

    def _upload(self, step: str) -> None:
        before = self._store.document_versioned(self._latest)
        old: dict[str, Any] = before[0] if before else {"name": "", "files": []}
        if before and before[1] != self._unusable and layout.checkpoint_in(old["name"]) >= step:
            self._mirrored = step  # another runner is as far, or farther
            return
        mine: dict[str, Any] = {"name": f"{step}-{self._holder}", "files": []}
        try:
            mine["files"] = sorted(path.name for path in (self._folder / step).iterdir())
            for file in mine["files"]:
                self._store.upload(f"{self._prefix}/{mine['name']}/{file}", self._folder / step / file)
        except FileNotFoundError:  # training has dropped it for a newer one meanwhile
            won = False
        else:
            won = self._publish(seal(mine), before[1] if before else None)
            self._mirrored = step
        gone = old if won else mine
        if gone["files"]:
            self._store.delete([f"{self._prefix}/{gone['name']}/{file}" for file in gone["files"]])

    def _publish(self, latest: bytes, version: str | None) -> bool:
        """Whether `latest.json` was still what it was before the upload, and names the new checkpoint now."""
        if version is None:
            return self._store.create(self._latest, latest)
        return self._store.swap(self._latest, latest, version)
