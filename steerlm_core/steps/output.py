"""How every step writes: parts first, then the manifest, and nothing twice.

A step opens its `Output`. Where a manifest of the same inputs stands already, there is nothing to
do. Where one of other inputs stands, the step refuses: somebody would lose work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from steerlm_core import layout
from steerlm_core.config import digest
from steerlm_core.errors import ForeignOutputError
from steerlm_core.steps.context import StepContext
from steerlm_core.store.manifest import Manifest, Part
from steerlm_core.store.sealed import seal


class Output:
    """The output of one step at one place of the run."""

    def __init__(
        self,
        context: StepContext,
        step: str,
        prefix: str,
        inputs: Mapping[str, str],
        settings: Mapping[str, BaseModel | Any],
    ) -> None:
        """Name the output.

        Args:
            context: The step's context.
            step: The step's name.
            prefix: Where its manifest and parts stand.
            inputs: Content digest of everything that the step reads, by name.
            settings: Every part of the configuration that the step uses, by name.
        """
        self._context, self._step, self._prefix = context, step, prefix
        self._inputs = dict(inputs)
        values = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in settings.items()}
        self.input_digest = digest({"step": step, "inputs": self._inputs, "settings": values})
        self._parts: list[Part] = []

    @property
    def prefix(self) -> str:
        """Where the output stands, relative to the root."""
        return self._prefix

    def existing(self) -> Manifest | None:
        """Return the manifest of the same work done earlier, or None.

        Raises:
            ForeignOutputError: The output exists and was made from something else.
        """
        if not self._context.store.exists(layout.manifest(self._prefix)):
            return None
        manifest = self._context.manifest(self._prefix)
        if manifest.input_digest != self.input_digest:
            raise ForeignOutputError(
                f"{self._context.store.root}/{self._prefix}: this output of '{self._step}' was made from other inputs "
                f"or settings (digest {manifest.input_digest[:12]}, now {self.input_digest[:12]}). Use a new run "
                "directory for the changed configuration, or restore the old one."
            )
        return manifest

    def write_table(self, table: pa.Table, split: str = "") -> None:
        """Write the next part."""
        self._parts.append(self._context.store.write_table(self._prefix, len(self._parts), table, split))

    def write_folder(self, folder: Path) -> None:
        """Write a model's folder."""
        self._parts.extend(self._context.store.write_folder(self._prefix, folder))

    def add(self, parts: Iterable[Part]) -> None:
        """Name parts that are written already."""
        self._parts.extend(parts)

    def commit(self, **metrics: Any) -> Manifest:
        """Write the manifest, create-only; from here on the output exists.

        Returns:
            The manifest that stands: that of another runner, where one came first with the same inputs.

        Raises:
            LeaseLostError: Another runner has taken over this step.
            ForeignOutputError: Another output has come to stand here meanwhile.
        """
        manifest = Manifest(
            step=self._step,
            run_id=self._context.run_id,
            input_digest=self.input_digest,
            inputs=self._inputs,
            parts=self._parts,
            metrics=metrics,
        )
        self._context.check_lease()
        if self._context.store.create(layout.manifest(self._prefix), seal(manifest.model_dump(mode="json"))):
            return manifest
        self._context.events.warning(f"{self._prefix}: another runner has finished this first; its output stands.")
        standing = self.existing()
        assert standing is not None
        return standing
