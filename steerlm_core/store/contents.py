"""What a run consists of, as its own documents tell: what verify reads, gc keeps and copy carries.

    run.json ─► prompts, annotated, models ─► iterations/NNN ─► commit ─► decision, confirmation
                 each a manifest.json, which names its parts

Names follow from the layout, never from a listing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from steerlm_core import layout
from steerlm_core.errors import RunStateError
from steerlm_core.store.manifest import Manifest, Part
from steerlm_core.store.run_store import RunStore


@dataclass
class Contents:
    """The documents and the parts of a run.

    Attributes:
        run_id: Id of the run.
        manifests: Every manifest, by the prefix where it stands.
        documents: Every sealed document by its key, the manifests included.
        removed: Prefixes whose parts retention has removed.
        iterations: Number of iterations that have anything.
        problems: What is damaged, foreign or contradictory, by key.
    """

    run_id: str = ""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    iterations: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def parts(self) -> Iterator[Part]:
        """Yield every part that must exist."""
        for prefix, manifest in self.manifests.items():
            if prefix not in self.removed:
                yield from manifest.parts

    @property
    def commits(self) -> list[dict[str, Any]]:
        """The commits, in order."""
        keys = [layout.commit(number) for number in range(self.iterations)]
        return [self.documents[key] for key in keys if key in self.documents]


def read_contents(store: RunStore) -> Contents:
    """Read all documents of a run; what is wrong with one is noted, and the others are read.

    Raises:
        RunStateError: There is no run.
    """
    if not store.exists(layout.RUN):
        raise RunStateError(f"{store.root}: holds no run (no {layout.RUN}).")
    contents = Contents()
    described = _document(store, contents, layout.RUN)
    contents.run_id = str(described["run_id"]) if described else ""
    for prefix in layout.BEFORE_THE_LOOP:
        _output(store, contents, prefix)
    while _iteration(store, contents, contents.iterations):
        contents.iterations += 1
    for policy in (None, *range(contents.iterations)):
        _confirmation(store, contents, layout.confirmation(policy))
    _document(store, contents, layout.DECISION)
    return contents


def _iteration(store: RunStore, contents: Contents, number: int) -> bool:
    """Read an iteration; whether there is anything of it."""
    found = [_output(store, contents, prefix) for prefix in layout.iteration_outputs(number)]
    keys = (layout.evaluation_document(layout.evaluation(number)), layout.commit(number))
    documents = [_document(store, contents, key) for key in keys]
    return any(found) or any(document is not None for document in documents)


def _confirmation(store: RunStore, contents: Contents, stage: str) -> None:
    first, *others = layout.stage_outputs(stage)
    if _output(store, contents, first):
        for prefix in others:
            _output(store, contents, prefix)
        _document(store, contents, layout.confirmation_document(stage))
        _document(store, contents, layout.comparison_document(stage))


def _output(store: RunStore, contents: Contents, prefix: str) -> bool:
    """Read one manifest; whether it stands."""
    key = layout.manifest(prefix)
    document = _document(store, contents, key)
    if document is None:
        return key in contents.problems
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        contents.problems[key] = f"not a manifest of this version ({error.error_count()} errors)"
        return True
    if manifest.run_id != contents.run_id:
        contents.problems[key] = f"belongs to run '{manifest.run_id}', this is run '{contents.run_id}'"
    contents.manifests[prefix] = manifest
    if _document(store, contents, layout.removed(prefix)) is not None:
        contents.removed.add(prefix)
    return True


def _document(store: RunStore, contents: Contents, key: str) -> dict[str, Any] | None:
    try:
        found = store.document_versioned(key)
    except RunStateError:
        contents.problems[key] = "damaged: its bytes are not those that were written"
        return None
    if found is None:
        return None
    contents.documents[key] = found[0]
    return found[0]
