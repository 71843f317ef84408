"""What a key is: the functions of `steerlm_core.layout` backwards, for gc and for whoever removes a run.

Only what a run has named itself is ever removed; whatever else lies in the folder stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from steerlm_core import layout


class Kind(StrEnum):
    """What an object of a run root is."""

    DOCUMENT = "document"
    PART = "part"
    RECORD = "record"
    CHECKPOINT = "checkpoint"  # or a model that training is writing
    TRAINING = "training"  # all else in training's own folder
    LEASE = "lease"
    EVENTS = "events"
    JOB = "job"
    WRITING = "writing"  # a file that is not whole yet


@dataclass(frozen=True)
class Known:
    """An object of a run, as its name tells.

    Attributes:
        kind: What it is.
        output: The output that a part, a record or a checkpoint was written for; else empty.
    """

    kind: Kind
    output: str = ""


def recognise(key: str) -> Known | None:
    """Return what an object of a run root is; None where its name is none that a run gives."""
    for kind, pattern in _PATTERNS:
        if found := pattern.fullmatch(key):
            trained = layout.policy_model(int(found["iteration"])) if kind is Kind.CHECKPOINT else ""
            return Known(kind, trained or found.groupdict().get("output", ""))
    return None


class _Number(int):
    """Formats as the pattern of numbers, so that the functions of `layout` make the patterns of their own keys."""

    group = r"\d{%d,}"

    def __format__(self, form: str) -> str:
        return self.group % int(form.removesuffix("d") or 1)


class _Iteration(_Number):
    group = r"(?P<iteration>\d{%d,})"


def _any(*keys: str) -> str:
    return f"(?:{'|'.join(keys)})"


_N, _HASH, _HOLDER = _Number(), f"[0-9a-f]{{{layout.HASH_DIGITS}}}", "[0-9a-f]{8}"
_CONFIRMATION = _any(layout.confirmation(None), layout.confirmation(_N))
_SAMPLES = layout.stage_outputs(_any(layout.iteration(_N), _CONFIRMATION))
_TABLES = _any(layout.PROMPTS, layout.ANNOTATED, *_SAMPLES, layout.evaluation(_N))
_MODELS = _any(layout.PRIOR, layout.ATTRIBUTE_MODEL, layout.policy_model(None), layout.policy_model(_N))
_ALL = _any(_TABLES, _MODELS)
_WORK = layout.training(_Iteration())
_CHECKPOINT = f"(?:{layout.UNFINISHED_CHECKPOINT})?{layout.checkpoint(_N)}(?:-{_HOLDER})?"
_STEP_LEASES = [layout.step_lease("[a-z_]+", at, shard) for at in (None, _N) for shard in (None, (_N, _N))]
_KEYS = (
    (Kind.WRITING, f"(?:.+/)?{layout.WRITING}.*"),
    (Kind.DOCUMENT, _any(layout.RUN, layout.DECISION, layout.commit(_N))),
    (Kind.DOCUMENT, _any(layout.manifest(_ALL), layout.removed(_ALL))),
    (Kind.DOCUMENT, layout.evaluation_document(layout.evaluation(_N))),
    (Kind.DOCUMENT, _any(layout.confirmation_document(_CONFIRMATION), layout.comparison_document(_CONFIRMATION))),
    (Kind.PART, layout.part(f"(?P<output>{_TABLES})", _N, _HASH)),
    (Kind.PART, layout.model_file(f"(?P<output>{_MODELS})", _HASH, ".+")),
    (Kind.RECORD, layout.record(f"(?P<output>{_any(*_SAMPLES)})", _N)),
    (Kind.CHECKPOINT, layout.latest_checkpoint(layout.checkpoints(_WORK))),
    (Kind.CHECKPOINT, f"{layout.checkpoints(_WORK)}/{_CHECKPOINT}/.+"),
    (Kind.CHECKPOINT, f"{_WORK}/{layout.unfinished_model(_HOLDER)}/.+"),
    (Kind.TRAINING, f"{_WORK}/.+"),
    (Kind.LEASE, _any(*map(layout.lease, _STEP_LEASES), layout.probe("[0-9a-f]{32}"))),
    (Kind.EVENTS, f"{layout.EVENTS}.+"),
    (Kind.JOB, f"{layout.JOBS}.+"),
)
# A dot before a letter is a dot.
_PATTERNS = [(kind, re.compile(re.sub(r"\.(?=[a-z])", r"\.", keys))) for kind, keys in _KEYS]
