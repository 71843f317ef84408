"""What a run would be trained on, as one digest: equal digests mean that there is nothing new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steerlm_core.config import RunConfig, digest
from steerlm_core.errors import DataError
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
    return digest(
        {"config": config.deciding(), "content": {name: _content(name, str(it)) for name, it in named.items()}}
    )


def _content(field: str, reference: str) -> Any:
    """What tells one version of an input from the next: hashes of files, entity tags of objects."""
    if reference.startswith(_MADE_HERE) or reference == "prior":
        return reference
    found = _in_bucket(reference) if reference.startswith("s3://") else _on_disk(reference)
    if not found:
        raise DataError(f"{field}: '{reference}': there is no such file or folder.")
    return found


def _in_bucket(reference: str) -> Any:
    """The tag of an object, else those of a folder's objects; none of them is read."""
    parent, _, name = reference.rstrip("/").rpartition("/")
    store = open_store(parent)
    if store.exists(name):
        return next((found.tag for found in store.listing(name) if found.key == name), None)
    return sorted((found.key, [found.size, found.tag]) for found in open_store(reference).listing())


def _on_disk(reference: str) -> list[list[str]]:
    local = open_store(reference).root if reference.startswith("file://") else reference
    path = Path(local).expanduser()
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [[each.name, file_sha256(each)] for each in files if each.exists()]
