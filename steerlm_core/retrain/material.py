"""What a run would be trained on, as one digest: equal digests mean that there is nothing new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlm_core.config import RunConfig, digest
from steerlm_core.store import open_store
from steerlm_core.store.hashes import file_sha256

_MADE_HERE = ("embedded:", "package:")


def material_digest(config: RunConfig) -> str:
    """Return the digest of the prompts, the annotated data, the models and the configuration of a run.

    Args:
        config: As the user gave it: the promoted policy, from which the run will start, does not count.

    Raises:
        DataError: Something that is named does not exist.
    """
    named = {
        "prompts": config.prompts.source,
        "annotated": config.annotated.source,
        **{f"models.{name}": value for name, value in config.models.model_dump(exclude={"dtype"}).items() if value},
    }
    return digest({"config": config.deciding(), "content": {name: _content(str(what)) for name, what in named.items()}})


def _content(reference: str) -> Any:
    """What tells one version of an input from the next: hashes of files, entity tags of objects."""
    if reference.startswith(_MADE_HERE) or reference == "prior":
        return reference
    if reference.startswith("s3://"):
        parent, _, name = reference.rstrip("/").rpartition("/")
        folder = open_store(reference)
        tags = {found.key: [found.size, found.tag] for found in folder.listing()}
        alone = open_store(parent).read_versioned(name) if not tags else None
        return sorted(tags.items()) if alone is None else alone[1]
    path = Path(reference).expanduser()
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [[each.name, file_sha256(each)] for each in files if each.exists()]
