"""What a step leaves behind: the manifest that names its parts and what they were made from.

A manifest is written last, in one atomic put; until it stands, the parts beside it do not exist
for any reader. It holds no times and no paths, so equal work gives equal manifests.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from steerlm_core.config import digest


class Part(BaseModel):
    """One stored object.

    Attributes:
        key: Where it lies, relative to the run root; a hash of the content is in the name.
        rows: Rows of a table part; 0 for a file of a model.
        size: Bytes.
        sha256: Of the stored bytes; checked on every read.
        split: `train` or `held_out` for parts of the prompt set and all that follows from it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    rows: int = 0
    size: int
    sha256: str
    split: str = ""


class Manifest(BaseModel):
    """All that one step wrote, and the digest of all that it read.

    Attributes:
        step: The step's name.
        run_id: The run that it belongs to.
        input_digest: Of everything that was read and of the settings used.
        inputs: Content digest of everything that was read, by name.
        parts: What was written.
        metrics: What was found, in numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    run_id: str
    input_digest: str
    inputs: dict[str, str] = {}
    parts: list[Part]
    metrics: dict[str, Any] = {}

    @property
    def content_digest(self) -> str:
        """Digest of what was written; equal for equal content in any run."""
        return digest([self.step, [[part.key.rsplit("/", 1)[-1], part.sha256] for part in self.parts], self.metrics])

    def of_split(self, split: str) -> list[Part]:
        """Parts of one split, in order."""
        return [part for part in self.parts if part.split == split]
