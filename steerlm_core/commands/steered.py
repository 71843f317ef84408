"""A policy of a run, asked for responses at given levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steerlm_core.attributes import Target
from steerlm_core.config import RunConfig
from steerlm_core.errors import PromptTooLongError
from steerlm_core.models.loading import ModelCache, context_length, end_token_id
from steerlm_core.prompts import prompt_ids
from steerlm_core.raters import measure
from steerlm_core.sampling.sampler import Draw, noise_key, sample

_DRAW = 3_000_000  # names the random draws; no stage of a run has this number


@dataclass(frozen=True)
class Answer:
    """A response, and what the measured raters say of it."""

    target: Target
    text: str
    measured: dict[str, float]


class SteeredPolicy:
    """A policy, loaded."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Load it."""
        models = ModelCache()
        self._model, self._tokenizer = models.causal_lm(folder, config.models.dtype), models.tokenizer(folder)
        self._config, self._context = config, context_length(folder)

    def answer(self, prompt: str, targets: Sequence[Target], candidates: int) -> list[Answer]:
        """Return `candidates` responses at each target; the same noise at each, so that only the level differs.

        Raises:
            PromptTooLongError: The prompt leaves no room for a response.
        """
        config = self._config
        asked = [target for target in targets for _ in range(candidates)]
        draws = [
            Draw(self._ids(prompt, target), noise_key(config.seed, _DRAW, prompt, number % candidates))
            for number, target in enumerate(asked)
        ]
        end = end_token_id(self._tokenizer, "models.policy")
        samples = sample(self._model, draws, config.generate, end)
        texts = [
            str(self._tokenizer.decode(each.ids, skip_special_tokens=True)) + ("" if each.complete else "…")
            for each in samples
        ]
        return [Answer(target, text, self._measure(text)) for target, text in zip(asked, texts, strict=True)]

    def _ids(self, prompt: str, target: Target) -> tuple[int, ...]:
        ids = tuple(prompt_ids(prompt, target, self._config.prompts.format, self._tokenizer))
        limit = self._config.generate.max_new_tokens
        if self._context is not None and len(ids) + limit > self._context:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens; with generate.max_new_tokens = {limit} it exceeds the model's "
                f"context of {self._context}. Shorten it."
            )
        return ids

    def _measure(self, text: str) -> dict[str, float]:
        rated = [name for name in self._config.attribute_names if name in self._config.raters]
        return dict(zip(rated, measure(text, self._config.raters, rated), strict=True))
