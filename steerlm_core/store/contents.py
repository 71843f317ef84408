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

from steerlm_core.errors import RunStateError
from steerlm_core.store.manifest import Manifest, Part
from steerlm_core.store.run_store import REMOVED, RunStore

RUN, DECISION = "run.json", "decision.json"
ALONGSIDE = ("events/", "jobs/")  # of the run's past; no document names what lies there, and nobody verifies it
BEFORE_THE_LOOP = ("prompts", "annotated", "models/prior", "models/attribute", "models/policy-0")
STAGE_OUTPUTS = ("candidates", "labels", "prior_scores", "groups")
ITERATION_OUTPUTS = (*STAGE_OUTPUTS, "model", "evaluation")


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
        keys = [f"{iteration_prefix(number)}/commit.json" for number in range(self.iterations)]
        return [self.documents[key] for key in keys if key in self.documents]


def iteration_prefix(number: int) -> str:
    """Return where an iteration stands."""
    return f"iterations/{number:03d}"


def comparison_key(best: int) -> str:
    """Return where the best policy's comparison with the promoted one stands."""
    return f"confirmation/iteration-{best:03d}/comparison.json"


def read_contents(store: RunStore) -> Contents:
    """Read all documents of a run; what is wrong with one is noted, and the others are read.

    Raises:
        RunStateError: There is no run.
    """
    if not store.exists(RUN):
        raise RunStateError(f"{store.root}: holds no run (no {RUN}).")
    contents = Contents()
    described = _document(store, contents, RUN)
    contents.run_id = str(described["run_id"]) if described else ""
    for prefix in BEFORE_THE_LOOP:
        _output(store, contents, prefix)
    while _iteration(store, contents, iteration_prefix(contents.iterations)):
        contents.iterations += 1
    for name in ("policy-0", *(f"iteration-{number:03d}" for number in range(contents.iterations))):
        _confirmation(store, contents, f"confirmation/{name}")
    _document(store, contents, DECISION)
    return contents


def _iteration(store: RunStore, contents: Contents, prefix: str) -> bool:
    """Read an iteration; whether there is anything of it."""
    found = [_output(store, contents, f"{prefix}/{name}") for name in ITERATION_OUTPUTS]
    documents = [
        _document(store, contents, f"{prefix}/{name}") for name in ("evaluation/evaluation.json", "commit.json")
    ]
    return any(found) or any(document is not None for document in documents)


def _confirmation(store: RunStore, contents: Contents, prefix: str) -> None:
    if _output(store, contents, f"{prefix}/candidates"):
        for name in STAGE_OUTPUTS[1:]:
            _output(store, contents, f"{prefix}/{name}")
        _document(store, contents, f"{prefix}/confirmation.json")
        _document(store, contents, f"{prefix}/comparison.json")


def _output(store: RunStore, contents: Contents, prefix: str) -> bool:
    """Read one manifest; whether it stands."""
    key = f"{prefix}/manifest.json"
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
    if _document(store, contents, f"{prefix}/{REMOVED}") is not None:
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
