"""A tiny world to train in: a policy of some 20,000 weights, and groups whose logQ was captured from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from steerlm_core.config import GenerateConfig, TrainConfig
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.loading import load_causal_lm
from steerlm_core.models.scoring import response_log_probs
from steerlm_core.schemas import GROUPS
from steerlm_core.training.job import TrainJob

VOCABULARY = 64


def make_policy(folder: Path, seed: int = 0, tied: bool = False) -> Path:
    """Save a random Llama and a tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, max_position_embeddings=128, tie_word_embeddings=tied, initializer_range=0.05,
        attention_dropout=0.1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    # Large gradients on small weights: five steps move far more than float32 rounds.
    with torch.no_grad():
        model.model.embed_tokens.weight *= 0.05
        if not tied:
            model.lm_head.weight *= 6
    model.save_pretrained(folder)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1").save_pretrained(folder)
    return folder


def token_groups(count: int, seed: int = 0, fixed: bool = False) -> list[TokenGroup]:
    """Groups of two to five responses of 2 to 9 tokens behind prompts of 4 to 9: 64 tokens at most.

    `fixed` makes all groups of one size: 4 responses of 12 tokens behind 12, 60 tokens.
    """
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(2, VOCABULARY, rng.integers(low, high + 1)))

    if fixed:
        return [TokenGroup(tokens(12, 12), tuple(tokens(12, 12) for _ in range(4))) for _ in range(count)]
    return [TokenGroup(tokens(4, 9), tuple(tokens(2, 9) for _ in range(rng.integers(2, 6)))) for _ in range(count)]


def write_groups(path: Path, policy: Path, groups: list[TokenGroup], seed: int = 0) -> Path:
    """Store groups with log_q re-scored by the policy itself, and an invalid candidate in every third."""
    rng = np.random.default_rng(seed)
    scores = response_log_probs(load_causal_lm(policy, "float32"), groups, token_budget=4096)
    pairs = enumerate(zip(groups, scores, strict=True))
    rows = [_row(number, group, score.sums[:, 0].tolist(), rng) for number, (group, score) in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, GROUPS), path)
    return path


def _row(number: int, group: TokenGroup, log_q: list[float], rng: np.random.Generator) -> dict[str, Any]:
    raw = rng.normal(0, 2, len(log_q))
    log_ws = (raw - np.log(np.exp(raw).sum())).tolist()
    row: dict[str, Any] = {
        "group_id": f"g{number:03d}", "split": "train", "target": [("mood", 1)], "prompt_ids": list(group.prompt),
        "responses": [list(response) for response in group.responses], "valid": [True] * len(log_q),
        "truncated": [False] * len(log_q), "log_q": log_q, "log_p_start": log_q, "log_ws": log_ws,
        "log_p_attr": raw.tolist(), "log_p_prior": log_q, "ess": 1.0, "complete": True,
    }  # fmt: skip
    if number % 3 == 0:
        extra = {"responses": [5, 6], "valid": False, "truncated": True, "log_ws": -math.inf}
        extra |= dict.fromkeys(("log_q", "log_p_start", "log_p_attr", "log_p_prior"), math.nan)
        for key, value in extra.items():
            row[key] = [value, *row[key]]
    return {**row, "index": list(range(len(row["valid"])))}


def make_job(root: Path, policy: Path, part: Path, **settings: Any) -> TrainJob:
    """A job that trains below `root`; settings other than dtype are those of the training section."""
    dtype = settings.pop("dtype", "float32")
    digest = settings.pop("digest", "d" * 64)
    config = TrainConfig(**{"batch_groups": 4, "epochs": 1, "learning_rate": 1e-3, **settings})
    return TrainJob(
        policy, (part,), root / "model", root / "checkpoints", config, GenerateConfig(), dtype, 1, digest
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a saved model, in float64."""
    return {name: w.detach().double() for name, w in load_causal_lm(folder, "float64").state_dict().items()}


def change(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> float:
    """Return ||found - expected|| / ||expected - start|| over all weights."""
    error, moved = (
        math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))
        for one, other in ((found, expected), (expected, start))
    )
    return error / moved


def large_groups(count: int, seed: int = 0) -> list[TokenGroup]:
    """Groups of seven responses of 12 tokens behind prompts of 8: 92 tokens."""
    rng = np.random.default_rng([9, seed])
    rows = rng.integers(2, VOCABULARY, (count, 8 + 7 * 12)).tolist()
    return [TokenGroup(tuple(row[:8]), tuple(tuple(row[at : at + 12]) for at in range(8, 92, 12))) for row in rows]
