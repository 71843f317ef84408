"""How far training is, for the launcher: put into the run root by a thread, for a store may be slow or gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import TracebackType

from steerlm_core import layout
from steerlm_core.errors import StoreError
from steerlm_core.kube.job.files import PROGRESS_SECONDS, Progress
from steerlm_core.periodic import AfterChanges
from steerlm_core.store.run_store import RunStore

_log = logging.getLogger("steerlm.pod")


class ProgressWriter:
    """Puts the latest progress, the first at once."""

    def __init__(self, store: RunStore, job: str) -> None:
        """Name the job."""
        self._store, self._key = store, layout.job_progress(job)
        self._latest: Progress | None = None
        self._writes = AfterChanges(self._write, PROGRESS_SECONDS, "progress")

    def __enter__(self) -> ProgressWriter:
        """Nothing is written before the first step."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the last."""
        self._writes.close()

    def __call__(self, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        """Note the numbers of a step."""
        self._latest = Progress(step=step, steps=steps, loss=float(numbers["loss"]), time=time.time())
        self._writes.changed()

    def _write(self) -> None:
        latest, self._latest = self._latest, None
        if latest is None:
            return
        _log.info("step %d of %d, loss %.4f", latest.step, latest.steps, latest.loss)
        try:
            self._store.put(self._key, latest.model_dump_json().encode())
        except StoreError as error:
            _log.warning("progress is not in the run root: %s", error)
