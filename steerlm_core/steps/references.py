"""Model references of the configuration: `embedded:stories`, `package:MODULE/FILE.gguf`, or a directory.

`resolve_model` turns one into a local folder in Hugging Face form, `outline_model` into what is known without weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from steerlm_core.config import cache_home, local_path
from steerlm_core.embedded import EMBEDDED
from steerlm_core.errors import ModelError
from steerlm_core.models.outline import Outline, read_outline
from steerlm_core.models.packaged import find_packaged, unpack
from steerlm_core.progress import Progress, unheard
from steerlm_core.training.base_model import base_model, base_outline

_PACKAGE = "package:"


def resolve_model(
    reference: str,
    seed: int,
    where: str,
    progress: Progress = unheard,
    fetch: Callable[[str], Path] = local_path,
) -> Path:
    """Return the local folder of a model reference, making or unpacking it first if need be.

    Args:
        reference: As written in the configuration.
        seed: Seed of the embedded model.
        where: The configuration field, for messages.
        progress: Told how far the embedded model's training, or the unpacking, is.
        fetch: Brings a directory here that lies elsewhere.

    Raises:
        ModelError: There is no such model, or it is not in a form that is loaded.
    """
    if reference == EMBEDDED:
        return base_model(seed, progress=progress)
    if reference.startswith(_PACKAGE):
        source = find_packaged(reference.removeprefix(_PACKAGE), where)
        target = _unpacked_folder(source)
        if not target.is_dir():
            unpack(source, target, progress)
        return target
    return _model_folder(reference, where, fetch)


def outline_model(reference: str, seed: int, where: str, fetch: Callable[[str], Path] = local_path) -> Outline:
    """Return the outline of a model; of one that is yet to be made or unpacked, what it will be.

    Args:
        reference: As written in the configuration.
        seed: Seed of the embedded model.
        where: The configuration field, for messages.
        fetch: Brings a directory here that lies elsewhere; its weights may be left out.

    Raises:
        ModelError: There is no such model, or it is not in a form that is loaded.
    """
    if reference == EMBEDDED:
        return base_outline(seed)
    if reference.startswith(_PACKAGE):
        source = find_packaged(reference.removeprefix(_PACKAGE), where)
        if not _unpacked_folder(source).is_dir():
            return read_outline(source.parent, where, source.name)
        return read_outline(_unpacked_folder(source), where)
    return read_outline(_model_folder(reference, where, fetch), where)


def _model_folder(reference: str, where: str, fetch: Callable[[str], Path]) -> Path:
    """Return the local folder of a model that the user has.

    Args:
        reference: A directory, here or elsewhere.
        where: The configuration field, for messages.
        fetch: Brings it here.

    Raises:
        ModelError: It is no model folder.
    """
    folder = fetch(reference)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{where}: '{reference}' is no model folder (no config.json there). Give a directory in Hugging Face form, "
            "embedded:stories, or package:MODULE/FILE.gguf."
        )
    return folder


def _unpacked_folder(source: Path) -> Path:
    """Where a GGUF file's plain form is kept; it appears there whole."""
    return cache_home() / "unpacked" / source.stem
