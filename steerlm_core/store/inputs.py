"""What a user names in the configuration and keeps elsewhere: prompts, annotated texts, models in a bucket."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from steerlm_core.errors import DataError
from steerlm_core.progress import Progress, unheard
from steerlm_core.store.moved import Moved
from steerlm_core.store.run_store import RunStore

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".onnx_data")


class Inputs:
    """Brings files and folders of a bucket into a local folder, each once."""

    def __init__(self, folder: Path, weights: bool = True, progress: Progress = unheard) -> None:
        """Name the folder; without weights, only the small files of a model are brought."""
        self._folder, self._weights, self._progress = folder / "inputs", weights, progress

    def fetch(self, reference: str) -> Path:
        """Return the local path of a file or a folder.

        Args:
            reference: A path, `file:///PATH`, or `s3://BUCKET/KEY` of a file or of a folder.

        Raises:
            DataError: There is nothing of that name.
        """
        from steerlm_core.store import open_store

        if reference.startswith("file://"):
            return Path(open_store(reference).root)
        if not reference.startswith("s3://"):
            return Path(reference).expanduser()
        target = self._folder / hashlib.sha256(reference.encode()).hexdigest()[:16]
        parent, _, name = reference.rstrip("/").rpartition("/")
        store = open_store(parent)
        if not (target / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            if store.exists(name):
                store.download(name, target / name)
            else:
                _download_folder(open_store(reference), target / name, self._weights, self._progress)
        return target / name


def _download_folder(store: RunStore, target: Path, weights: bool, progress: Progress) -> None:
    """Download the objects below a prefix; a listing is all that tells what a user's folder holds."""
    sizes = {listed.key: listed.size for listed in store.listing()}
    # A console's "folder" is an empty object whose key ends with "/".
    found = [key for key in sizes if key and not key.endswith(("/", *(() if weights else _WEIGHTS)))]
    if not found:
        raise DataError(f"{store.root}: there is no such file or folder.")
    fetched = Moved(sum(sizes[key] for key in found), "fetched", progress)
    for key in found:
        if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
            raise DataError(f"{store.root}: holds an object named '{key}', which is no plain path below it.")
        path = target / key
        path.parent.mkdir(parents=True, exist_ok=True)
        store.download(key, path, fetched)
