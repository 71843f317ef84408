"""Loading models from local folders in Hugging Face form; `steerlm_core.steps.references` finds these.

Code that comes with a model is never executed, and weights are read from safetensors only.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from steerlm_core.errors import ModelError
from steerlm_core.models.attribute_model import AttributeModel, load_attribute_model

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # transformers imports deepspeed, which would say that it looked
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

_KEPT = 4  # prior, policy, the policy before it, attribute model
_Loaded = TypeVar("_Loaded")


def end_token_id(tokenizer: PreTrainedTokenizerBase, where: str) -> int:
    """Return the one token that ends a response.

    Raises:
        ModelError: The tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{where}: the tokenizer has no end token (eos_token); set one in its tokenizer_config.json.")
    return int(tokenizer.eos_token_id)


def context_length(folder: Path, **options: Any) -> int | None:
    """Return how many positions the model of a folder has, or None where it does not say."""
    length = getattr(AutoConfig.from_pretrained(folder, **options), "max_position_embeddings", None)
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
