"""Models that a Python package carries as one GGUF file: `package:MODULE/FILE.gguf`."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from steerlm_core.errors import ModelError
from steerlm_core.progress import Progress

_READERS = ("gguf", "accelerate")  # what transformers reads such files with


def find_packaged(name: str, where: str) -> Path:
    """Return the GGUF file that `MODULE/FILE.gguf` names.

    Args:
        name: The reference, without `package:`.
        where: The configuration field, for messages.

    Raises:
        ModelError: The package, the file in it, or what reads such files is missing.
    """
    module, _, file = name.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"{where}: package '{module}' is not installed; `pip install` it (see the example's first lines)."
        )
    matches = [path for root in spec.submodule_search_locations for path in Path(root).rglob(file)]
    if not matches:
        raise ModelError(f"{where}: package '{module}' holds no file '{file}'.")
    if missing := [reader for reader in _READERS if importlib.util.find_spec(reader) is None]:
        raise ModelError(
            f"{where}: '{file}' cannot be read without {' and '.join(missing)}; "
            "`pip install 'steerlm-kubeflow[smollm2]'` brings both readers of such files."
        )
    return matches[0]


def unpack(source: Path, target: Path, progress: Progress) -> None:
    """Write a GGUF file as a plain folder; a model that still carries its quantisation refuses to be saved."""
    progress(0, 3, "stages")
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    progress(1, 3, "stages")
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    progress(2, 3, "stages")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / "model"
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folder.rename(target)
    progress(3, 3, "stages")
