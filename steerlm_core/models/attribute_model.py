"""The attribute model: a language model's trunk with one linear head, predicting levels.

    features(prompt, response) = [hidden state of the end token, mean hidden state of the response, log length]
    levels = head(features)                                                                  # (B, A)

It tokenises for itself, from text, so its vocabulary need not be that of prior and policy. A folder
holds the trunk in Hugging Face form, `head.safetensors`, and `attribute_model.json` with names,
ranges and the quality measured on validation texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from steerlm_core import layout
from steerlm_core.attributes import AttributeSpec
from steerlm_core.errors import ModelError, PromptTooLongError
from steerlm_core.progress import Tell, unheard
from steerlm_core.steering import spearman

_HEAD_FILE = "head.safetensors"

# Token ids of the prompt and of the response.
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Quality:
    """How well one attribute is predicted on texts that the model was not trained on.

    Attributes:
        r2: Share of the variance explained.
        mae: Mean absolute error, in levels.
        sigma: Standard deviation of the residual, in levels.
        spearman: Rank correlation of prediction and label.
        texts: Validation texts that have a label.
    """

    r2: float
    mae: float
    sigma: float
    spearman: float
    texts: int


class AttributeModel(nn.Module):
    """Predicts the level of every attribute of a response to a prompt."""

    def __init__(
        self, trunk: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, attributes: Sequence[AttributeSpec]
    ) -> None:
        """Put a zero head on a trunk.

        Args:
            trunk: As loaded by `AutoModel`.
            tokenizer: The trunk's own.
            attributes: One output each, in this order.
        """
        super().__init__()
        self.trunk = trunk
        self.tokenizer = tokenizer
        self.attributes = tuple(attributes)
        self.quality: dict[str, Quality] = {}
        self.head = nn.Linear(2 * int(trunk.config.hidden_size) + 1, len(self.attributes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attributes, in the order of the outputs."""
        return tuple(spec.name for spec in self.attributes)

    @property
    def sigma(self) -> list[float]:
        """Standard deviation of each attribute's residual on the validation texts, in levels."""
        return [self.quality[name].sigma for name in self.names]

    def encode(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Pair]:
        """Tokenise each pair: ids of the prompt line, ids of the response with the end token.

        Raises:
            PromptTooLongError: A pair does not fit into the trunk's context.
        """
        first = self.tokenizer([f"{prompt}\n" for prompt in prompts], add_special_tokens=False)["input_ids"]
        second = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        end = [int(self.tokenizer.eos_token_id)]
        pairs = [(list(prompt), list(response) + end) for prompt, response in zip(first, second, strict=True)]
        limit = getattr(self.trunk.config, "max_position_embeddings", None)
        for number, (prompt, response) in enumerate(pairs):
            if limit and len(prompt) + len(response) > limit:
                raise PromptTooLongError(
                    f"attribute model: text {number} has {len(prompt) + len(response)} tokens, its context is {limit}; "
                    f"shorten the prompt ({prompts[number][:60]!r}…) or take an attribute model with a longer context."
                )
        return pairs

    def features(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the features [B, 2H + 1] of tokenised pairs; one forward pass."""
        device = self.head.weight.device
        lengths = torch.tensor([len(prompt) + len(response) for prompt, response in pairs], device=device)
        starts = torch.tensor([len(prompt) for prompt, _ in pairs], device=device)
        ids = torch.zeros(len(pairs), int(lengths.max()), dtype=torch.long)
        for row, (prompt, response) in enumerate(pairs):
            ids[row, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        # Padding stands right of the text, where a causal model does not look.
        hidden = self.trunk(input_ids=ids.to(device), use_cache=False).last_hidden_state.float()  # (B, T, H)
        places = torch.arange(ids.shape[1], device=device)
        inside = ((places >= starts[:, None]) & (places < lengths[:, None])).float()  # (B, T)
        count = inside.sum(1, keepdim=True)  # (B, 1), at least the end token
        mean = (hidden * inside[..., None]).sum(1) / count
        last = hidden[torch.arange(len(pairs), device=device), lengths - 1]
        return torch.cat([last, mean, count.log()], dim=1)

    def forward(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the levels [B, A] of tokenised pairs."""
        levels: Tensor = self.head(self.features(pairs))
        return levels

    @torch.no_grad()
    def predict(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        batch: int = 64,
        progress: Tell = unheard,
    ) -> Tensor:
        """Predict the levels of responses.

        Args:
            prompts: The user's text of each.
            responses: The text of each.
            batch: Texts in a forward pass; they are sorted by length first.
            progress: Told how many texts are done.

        Returns:
            Levels [B, A], float32 on the CPU, unclamped, in the order given.
        """
        return run_sorted(self.encode(prompts, responses), self, len(self.attributes), batch, progress)

    def save(self, folder: Path) -> None:
        """Write the model to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.trunk.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file(
            {name: tensor.contiguous().cpu() for name, tensor in self.head.state_dict().items()}, folder / _HEAD_FILE
        )
        info = {
            "attributes": [spec.model_dump() for spec in self.attributes],
            "quality": {name: asdict(quality) for name, quality in self.quality.items()},
        }
        (folder / layout.ATTRIBUTE_INFO).write_text(json.dumps(info, indent=2) + "\n")


def load_attribute_model(folder: str | Path) -> AttributeModel:
    """Load what `AttributeModel.save` wrote, in evaluation mode, on the accelerator if there is one.

    Raises:
        ModelError: The folder holds no attribute model.
    """
    folder = Path(folder)
    if not (folder / layout.ATTRIBUTE_INFO).is_file():
        raise ModelError(
            f"{folder}: no attribute model (no {layout.ATTRIBUTE_INFO} there). Leave models.attribute out to have one "
            "trained."
        )
    info: dict[str, Any] = json.loads((folder / layout.ATTRIBUTE_INFO).read_text())
    attributes = [AttributeSpec.model_validate(spec) for spec in info["attributes"]]
    model = attribute_model_from_trunk(folder, attributes)
    model.head.load_state_dict(load_file(folder / _HEAD_FILE))
    model.quality = {name: Quality(**quality) for name, quality in info["quality"].items()}
    return model.eval()


def attribute_model_from_trunk(folder: str | Path, attributes: Sequence[AttributeSpec]) -> AttributeModel:
    """Put a zero head on the trunk of any language model's folder, in float32.

    Raises:
        ModelError: The folder cannot be loaded, or its tokenizer has no end token.
    """
    try:
        trunk = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: cannot be loaded as the trunk of an attribute model: {error}") from error
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has no end token (eos_token); set one in its tokenizer_config.json.")
    model = AttributeModel(trunk, tokenizer, attributes)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def run_sorted(
    pairs: Sequence[Pair],
    function: Callable[[Sequence[Pair]], Tensor],
    width: int,
    batch: int,
    progress: Tell = unheard,
) -> Tensor:
    """Apply a function of tokenised pairs batch by batch, longest first, and restore the order: [B, width]."""
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
    out = torch.zeros(len(pairs), width)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        out[rows] = function([pairs[i] for i in rows]).float().cpu()
        progress(start + len(rows), len(order))
    return out


def measure_quality(predicted: Tensor, labels: Tensor, attributes: Sequence[AttributeSpec]) -> dict[str, Quality]:
    """Compare predictions [B, A] with labels [B, A] (NaN: missing), attribute by attribute."""
    result = {}
    for column, spec in enumerate(attributes):
        known = ~labels[:, column].isnan()
        label = labels[known, column].double().numpy()
        residual = predicted[known, column].double().numpy() - label
        variance = float(label.var()) if len(label) else 0.0
        result[spec.name] = Quality(
            r2=1 - float((residual**2).mean()) / variance if variance > 0 else 0.0,
            mae=float(np.abs(residual).mean()) if len(label) else 0.0,
            sigma=float(residual.std()) if len(label) else 0.0,
            spearman=_correlation(residual + label, label),
            texts=len(label),
        )
    return result


def _correlation(predicted: NDArray[np.float64], label: NDArray[np.float64]) -> float:
    """Rank correlation; 0 where it is undefined, since JSON has no NaN."""
    correlation = spearman(predicted.tolist(), label.tolist())
    return 0.0 if math.isnan(correlation) else correlation
