"""The names that a run gives to its objects: what `gc` may remove, because nobody else can have written it."""

from __future__ import annotations

import re

from steerlm_core.store.contents import ALONGSIDE
from steerlm_core.store.local import UNFINISHED

_CONFIRMED = r"confirmation/(?:policy-0|iteration-\d{3})"
_STAGE = rf"(?:iterations/\d{{3}}|{_CONFIRMED})"
_OUTPUT = r"(?:candidates|labels|prior_scores|groups|model|evaluation)"
_TABLE = re.compile(
    rf"(?P<prefix>prompts|annotated|{_STAGE}/(?:candidates|labels|prior_scores|groups|evaluation))"
    r"/part-\d{5}-[0-9a-f]{12}\.parquet"
)
_MODEL = re.compile(r"(?P<prefix>models/(?:prior|attribute|policy-0)|iterations/\d{3}/model)/[0-9a-f]{12}/.+")
_TRAINING = re.compile(
    r"(?P<prefix>iterations/\d{3})/train/"
    r"(?:checkpoints/(?:latest\.json|\.?[a-z]*-?step-\d{8}(?:-[0-9a-f]{8})?/.+)|model-\w+/.+)"
)
_WORK = re.compile(r"iterations/\d{3}/train/.+")  # training's own folder
_RECORD = re.compile(rf"(?P<prefix>{_STAGE}/(?:candidates|labels|prior_scores))/records/\d{{5}}\.json")
_LEASE = re.compile(r"leases/(?:(?:\d{3}-)?[a-z_]+(?:-\d+of\d+)?\.json|probe-[0-9a-f]{32})")
_DOCUMENT = re.compile(
    rf"(?:prompts|annotated|models/(?:prior|attribute|policy-0)|{_STAGE}/{_OUTPUT})/(?:manifest|removed)\.json"
    rf"|iterations/\d{{3}}/(?:commit|evaluation/evaluation)\.json"
    rf"|{_CONFIRMED}/(?:confirmation|comparison)\.json"
    r"|(?:run|decision)\.json"
)


def is_ours(key: str) -> bool:
    """Whether an object of this name is the run's own, whatever its documents say."""
    named = _DOCUMENT.fullmatch(key) or _WORK.fullmatch(key)
    return named is not None or output_of(key) is not None or key.startswith(ALONGSIDE)


def is_part(key: str) -> bool:
    """Whether this is the name of a part that a manifest names."""
    return bool(_TABLE.fullmatch(key) or _MODEL.fullmatch(key))


def is_of_training(key: str) -> bool:
    """Whether this is the name of a checkpoint, or of a model that is being written."""
    return bool(_TRAINING.fullmatch(key))


def output_of(key: str) -> str | None:
    """Where the output stands that an unnamed object was written for; "" if for none, None if it is not ours."""
    if _LEASE.fullmatch(key) or key.rpartition("/")[2].startswith(UNFINISHED):
        return ""
    if training := _TRAINING.fullmatch(key):
        return f"{training['prefix']}/model"
    part = _TABLE.fullmatch(key) or _MODEL.fullmatch(key) or _RECORD.fullmatch(key)
    return part["prefix"] if part else None
