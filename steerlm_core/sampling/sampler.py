"""Sampling candidates, with the log-probability of every token as the sampler saw it.

    prefill each prompt once ─► one row a candidate ─► token by token ─► rows that have ended leave

A candidate is a function of its own noise stream alone: token t is the inverse of the cumulative
distribution at the stream's t-th uniform. How the work is cut into batches does not enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from steerlm_core.config import GenerateConfig, digest
from steerlm_core.models.distribution import filtered_log_probs
from steerlm_core.progress import Tell, unheard

_KEEP_SHARE = 0.75  # rows are thrown out of the batch when fewer than this share still runs


@dataclass(frozen=True)
class Draw:
    """One candidate to sample: a prompt and the key of its noise stream."""

    prompt: tuple[int, ...]
    key: int


@dataclass
class Sample:
    """A sampled response.

    Attributes:
        ids: Token ids, the end token included when it was sampled.
        log_q: The sampler's own log-probability of each token, of the distribution sampled from.
        complete: Whether it ended by the end token rather than by the length limit.
    """

    ids: list[int] = field(default_factory=list)
    log_q: list[float] = field(default_factory=list)
    complete: bool = False


def noise_key(seed: int, draw: int, group_id: str, index: int) -> int:
    """Return the key of a candidate's noise stream: run seed, stage, group, number in the group."""
    return int(digest([seed, draw, group_id, index])[:32], 16)


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    draws: Sequence[Draw],
    config: GenerateConfig,
    end_id: int,
    progress: Tell = unheard,
) -> list[Sample]:
    """Sample one response a draw, in order.

    Args:
        model: The policy, in evaluation mode.
        draws: What to sample; neighbours that share a prompt share its prefill.
        config: Length limit, temperature, top-k and top-p, batch.
        end_id: The end token.
        progress: Told how many draws are done; of the batch at work, as many as its responses are long so far.
    """
    samples: list[Sample] = []

    def tell_share(tokens: int, most: int) -> None:
        size = min(config.batch, len(draws) - len(samples))
        progress(len(samples) + size * tokens // most, len(draws))

    for start in range(0, len(draws), config.batch):
        samples += _Batch(model, draws[start : start + config.batch], config, end_id).run(tell_share)
        progress(len(samples), len(draws))
    return samples


class _Batch:
    """The rows that are decoded together; `rows[i]` is the number of the draw in row i."""

    def __init__(self, model: PreTrainedModel, draws: Sequence[Draw], config: GenerateConfig, end_id: int) -> None:
        self._model, self._config, self._end = model, config, end_id
        self._device = model.device
        self._samples = [Sample() for _ in draws]
        self._rows = np.arange(len(draws))
        self._prompts = list(dict.fromkeys(draw.prompt for draw in draws))
        where = {prompt: row for row, prompt in enumerate(self._prompts)}
        self._prompt_row = torch.tensor([where[draw.prompt] for draw in draws], device=self._device)  # [B]
        streams = [np.random.Generator(np.random.Philox(key=draw.key)) for draw in draws]
        self._noise = torch.tensor(
            np.stack([stream.random(config.max_new_tokens) for stream in streams]), device=self._device
        )  # [B, T]
        self._cache: Any = DynamicCache()

    def run(self, tell: Tell) -> list[Sample]:
        """Decode until every row has ended; `tell` hears how many tokens of the most are decoded."""
        logits, mask = self._prefill()
        for step in range(self._config.max_new_tokens):
            tell(step, self._config.max_new_tokens)
            tokens = self._choose(logits, step)  # [B]
            running = np.array([not self._samples[number].complete for number in self._rows])
            if step + 1 == self._config.max_new_tokens or not running.any():
                break
            if running.mean() < _KEEP_SHARE:
                tokens, mask = self._keep_only(running, tokens, mask)
            logits, mask = self._forward(tokens, mask)
        return self._samples

    def _prefill(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Read every distinct prompt once, then give each candidate its own row of the cache."""
        longest = max(map(len, self._prompts))
        ids = torch.zeros(len(self._prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(self._prompts):  # padded on the left
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=self._cache,
            logits_to_keep=1,
        )
        self._cache.batch_select_indices(self._prompt_row)
        return out.logits[self._prompt_row, -1], mask[self._prompt_row]

    def _choose(self, logits: torch.Tensor, step: int) -> torch.Tensor:
        """Sample a token in every row and note it with its log-probability; -> [B]."""
        settings = self._config
        log_probs = filtered_log_probs(logits.float(), settings.temperature, settings.top_k, settings.top_p)  # [B, V]
        cumulative = log_probs.double().exp().cumsum(-1)
        rows = torch.as_tensor(self._rows, device=self._device)
        threshold = self._noise[rows, step, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
        chosen = log_probs.gather(-1, tokens[:, None]).squeeze(-1)
        for number, token, log_q in zip(self._rows, tokens.tolist(), chosen.tolist(), strict=True):
            note = self._samples[number]
            if not note.complete:
                note.ids.append(token)
                note.log_q.append(log_q)
                note.complete = token == self._end
        return tokens

    def _keep_only(
        self, running: np.ndarray, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the rows that have ended out of the batch."""
        keep = torch.as_tensor(running.nonzero()[0], device=self._device)
        self._cache.batch_select_indices(keep)
        self._rows = self._rows[running]
        return tokens[keep], mask[keep]

    def _forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        out = self._model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=mask.sum(-1, keepdim=True) - 1,
            past_key_values=self._cache,
        )
        return out.logits[:, -1], mask
