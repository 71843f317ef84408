"""Finding and loading models.

A reference in the configuration is `embedded:stories`, `package:MODULE/FILE.gguf`, or a directory.
`resolve_model` turns it into a local folder in Hugging Face form; `ModelCache` loads from folders.
Code that comes with a model is never executed, and weights are read from safetensors only.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from steerlm_core.config import local_path
from steerlm_core.errors import ModelError
from steerlm_core.models.attribute_model import AttributeModel, load_attribute_model

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # transformers imports deepspeed, which would say that it looked
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

_KEPT = 4  # prior, policy, the policy before it, attribute model
_Loaded = TypeVar("_Loaded")


def cache_home() -> Path:
    """Where models made or unpacked here are kept between runs: $STEERLM_CACHE or ~/.cache/steerlm."""
    return Path(os.environ.get("STEERLM_CACHE") or Path.home() / ".cache" / "steerlm")


def resolve_model(
    reference: str,
    seed: int,
    where: str,
    progress: Callable[[int, int], None] | None = None,
    fetch: Callable[[str], Path] = local_path,
) -> Path:
    """Return the local folder of a model reference, making or unpacking it first if need be.

    Args:
        reference: As written in the configuration.
        seed: Seed of the embedded model.
        where: The configuration field, for messages.
        progress: Called with (steps done, steps of all) while the embedded model is trained.
        fetch: Brings a directory here that lies elsewhere.

    Raises:
        ModelError: There is no such model, or it is not in a form that is loaded.
    """
    kind, _, name = reference.partition(":")
    if reference == "embedded:stories":
        from steerlm_core.embedded.base_model import base_model

        return base_model(seed, progress=progress)
    if kind == "package":
        return _unpack_gguf(name, where)
    folder = fetch(reference)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{where}: '{reference}' is no model folder (no config.json there). Give a directory in Hugging Face form, "
            "embedded:stories, or package:MODULE/FILE.gguf."
        )
    return folder


def _unpack_gguf(name: str, where: str) -> Path:
    module, _, file = name.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"{where}: package '{module}' is not installed; `pip install` it (see the example's first lines)."
        )
    matches = [path for root in spec.submodule_search_locations for path in Path(root).rglob(file)]
    if not matches:
        raise ModelError(f"{where}: package '{module}' holds no file '{file}'.")
    target = cache_home() / "unpacked" / matches[0].stem
    if not (target / "config.json").is_file():
        _dequantise(matches[0], target)
    return target


def _dequantise(source: Path, target: Path) -> None:
    """Write a GGUF file as a plain folder; a model that still carries its quantisation refuses to be saved."""
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch) / "model"
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folder.rename(target)


def end_token_id(tokenizer: PreTrainedTokenizerBase, where: str) -> int:
    """Return the one token that ends a response.

    Raises:
        ModelError: The tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{where}: the tokenizer has no end token (eos_token); set one in its tokenizer_config.json.")
    return int(tokenizer.eos_token_id)


def check_same_vocabulary(prior: Path, policy: Path) -> None:
    """Refuse a prior and a policy whose token ids mean different things.

    Raises:
        ModelError: Their vocabularies or end tokens differ.
    """
    first, second = AutoTokenizer.from_pretrained(prior), AutoTokenizer.from_pretrained(policy)
    if first.get_vocab() != second.get_vocab() or first.eos_token_id != second.eos_token_id:
        raise ModelError(
            f"models.prior ({prior}) and models.policy ({policy}) have different vocabularies or end tokens "
            f"({len(first)} and {len(second)} tokens; ends {first.eos_token!r} and {second.eos_token!r}). "
            "log P(y|x) and log Q(y|a,x) must be of the same tokens: use models of one family."
        )


def context_length(folder: Path) -> int | None:
    """Return how many positions the model of a folder has, or None where it does not say."""
    from transformers import AutoConfig

    length = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
    return int(length) if length else None


class ModelCache:
    """The `Models` protocol: what was loaded last stays loaded."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def causal_lm(self, folder: Path, dtype: str) -> PreTrainedModel:
        """A causal language model in evaluation mode, on the accelerator if there is one."""
        return self._keep(folder, dtype, lambda: load_causal_lm(folder, dtype))

    def tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        """A tokenizer."""
        return self._keep(folder, "tokenizer", lambda: AutoTokenizer.from_pretrained(folder))

    def attribute_model(self, folder: Path) -> AttributeModel:
        """An attribute model in evaluation mode."""
        return self._keep(folder, "attribute", lambda: load_attribute_model(folder))

    def _keep(self, folder: Path, kind: str, load: Callable[[], _Loaded]) -> _Loaded:
        key = (str(folder), kind)
        if key not in self._kept:
            while len(self._kept) >= 2 * _KEPT:
                self._kept.popitem(last=False)
            self._kept[key] = load()
        self._kept.move_to_end(key)
        loaded: _Loaded = self._kept[key]
        return loaded


def load_causal_lm(folder: Path, dtype: str) -> PreTrainedModel:
    """Load a causal language model in evaluation mode, on the accelerator if there is one.

    Raises:
        ModelError: The folder holds no such model, or only pickled weights.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}: cannot be loaded as a causal language model in safetensors form: {error}"
        ) from error
    if torch.cuda.is_available():
        torch.nn.Module.cuda(model)
    return cast(PreTrainedModel, model.eval())
