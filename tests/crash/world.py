"""A run of two iterations that takes a second, what must come out of it, and what must never change in it."""

from __future__ import annotations

import hashlib
import re

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.layout import ITERATION_STEPS
from steerlm_core.store import open_store
from steerlm_core.store.manifest import Manifest
from tests.toy.runs import RESULTS

ITERATIONS = 2
STEPS = ("prepare", *(f"{number:03d}-{step}" for number in range(ITERATIONS) for step in ITERATION_STEPS), "confirm")
_DOCUMENTS = re.compile(rf"run\.json|(?!.*/checkpoints/).*/manifest\.json|{RESULTS.pattern}")


def tiny(toy: RunConfig) -> RunConfig:
    """A configuration of the toy world that stops by itself after two iterations, with a checkpoint at every step."""
    raw = toy.model_dump(mode="json")
    raw["prompts"] |= {"train": 12, "held_out": 8, "prompts_per_part": 7}
    raw["generate"] |= {"candidates": 4, "batch": 16}
    raw["train"] |= {"checkpoint_seconds": 1e-6}
    raw["convergence"] |= {"min_ess": 1.0, "patience": ITERATIONS, "min_relative_improvement": 0.99}
    return parse_config({**raw, "max_iterations": 6}, "tiny")


def committed(root: str) -> dict[str, str]:
    """All that nobody may ever change: documents and the parts that manifests name, with time and content."""
    store = open_store(root)
    listed = {found.key: found for found in store.listing()}
    documents = [key for key in listed if _DOCUMENTS.fullmatch(key)]
    manifests = [key for key in documents if key.endswith("/manifest.json")]
    parts = {part.key for key in manifests for part in Manifest.model_validate(store.document(key)).parts}
    return {
        key: f"{listed[key].modified} {hashlib.sha256(store.read(key)).hexdigest()}" for key in {*documents, *parts}
    }


def without_times_of_parts(found: dict[str, str]) -> dict[str, str]:
    """The same, but of parts the content only: a late writer may write a part again, as the name is the content."""
    return {key: state if _DOCUMENTS.fullmatch(key) else state.split()[1] for key, state in found.items()}
