"""Checkpoints of a training on this machine, kept in the run root while it goes on.

    <folder>/step-00000120/…  ─►  <prefix>/step-00000120/…, then <prefix>/latest.json

A checkpoint appears by a rename, whole; its files are uploaded first, then `latest.json` names it,
and only then the one before is removed. Training checks every byte of what it loads itself.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from steerlm_core.errors import RunStateError, SteerLMError
from steerlm_core.sealed import seal

if TYPE_CHECKING:
    from steerlm_core.store.run_store import RunStore

_LOOK_SECONDS = 0.5
_log = logging.getLogger(__name__)


class CheckpointMirror:
    """Brings the last checkpoint here on entry; afterwards uploads each new one, in a thread; on exit the last."""

    def __init__(self, store: RunStore, prefix: str, folder: Path) -> None:
        """Name both places."""
        self._store, self._prefix, self._folder = store, prefix, folder
        self._mirrored = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checkpoint mirror", daemon=True)

    def __enter__(self) -> CheckpointMirror:
        """Restore, and start to watch."""
        self._restore()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Upload what is new, and stop."""
        self._end.set()
        self._thread.join()
        self._upload_newest()

    @property
    def _latest(self) -> str:
        return f"{self._prefix}/latest.json"

    def _restore(self) -> None:
        found = self._store.document_versioned(self._latest)
        if found is None:
            return
        latest = found[0]
        folder = self._folder / latest["name"]
        try:
            if not folder.is_dir():
                self._download(latest["name"], latest["files"], folder)
        except RunStateError as error:  # a stalled runner that woke up may have removed a file
            _log.warning("the last checkpoint is not whole, so training starts from the beginning: %s", error)
            return
        self._mirrored = latest["name"]

    def _download(self, checkpoint: str, files: list[str], folder: Path) -> None:
        unfinished = self._folder / f".unfinished-{checkpoint}"
        unfinished.mkdir(parents=True, exist_ok=True)
        for file in files:
            self._store.download(f"{self._prefix}/{checkpoint}/{file}", unfinished / file)
        unfinished.rename(folder)

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            self._upload_newest()

    def _upload_newest(self) -> None:
        """Upload the newest checkpoint if it is new. Training goes on without, so a failure is said, not raised."""
        newest = max((path.name for path in self._folder.glob("step-*")), default="")
        if newest <= self._mirrored:
            return
        try:
            self._upload(newest)
        except FileNotFoundError:
            return  # training has dropped it for a newer one meanwhile
        except SteerLMError as error:
            _log.warning("checkpoint %s is not in the run root yet: %s", newest, error)

    def _upload(self, name: str) -> None:
        files = sorted(path.name for path in (self._folder / name).iterdir())
        for file in files:
            self._store.upload(f"{self._prefix}/{name}/{file}", self._folder / name / file)
        before = self._store.document_versioned(self._latest)
        self._store.put(self._latest, seal({"name": name, "files": files}))
        self._mirrored = name
        if before is not None:
            old = before[0]
            if old["name"] != name:
                self._store.delete([f"{self._prefix}/{old['name']}/{file}" for file in old["files"]])
