"""Models for a process that may need none: the first one that is loaded brings torch with it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from steerlm_core.models.attribute_model import AttributeModel
    from steerlm_core.models.loading import ModelCache


class LazyModels:
    """The `Models` protocol of `steerlm_core.steps.context`, by a `ModelCache` made on first use."""

    def causal_lm(self, folder: Path, dtype: str) -> PreTrainedModel:
        """A causal language model in evaluation mode."""
        return self._cache.causal_lm(folder, dtype)

    def tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        """A tokenizer."""
        return self._cache.tokenizer(folder)

    def attribute_model(self, folder: Path) -> AttributeModel:
        """An attribute model in evaluation mode."""
        return self._cache.attribute_model(folder)

    @cached_property
    def _cache(self) -> ModelCache:
        from steerlm_core.models.loading import ModelCache

        return ModelCache()
