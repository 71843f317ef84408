"""What is known of a model without its weights: its tokenizer and its context length.

A prompt set needs no more, so what is checked before a run makes, unpacks and downloads no weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from steerlm_core.errors import ModelError
from steerlm_core.models.loading import context_length


@dataclass(frozen=True)
class Outline:
    """A model without its weights.

    Attributes:
        name: Where it comes from, for messages.
        tokenizer: Its tokenizer.
        context: How many positions it has; None where it does not say.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    context: int | None


def read_outline(folder: Path, where: str, gguf_file: str | None = None) -> Outline:
    """Read the outline of a model's folder, or of a GGUF file, whose tensors are left alone.

    Args:
        folder: The folder.
        where: The configuration field, for messages.
        gguf_file: Name of the GGUF file in it.

    Raises:
        ModelError: Tokenizer or configuration cannot be read.
    """
    options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        return Outline(str(folder / (gguf_file or "")), tokenizer, context_length(folder, **options))
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: tokenizer or configuration of {folder} cannot be read: {error}") from error


def check_same_vocabulary(prior: Outline, policy: Outline) -> None:
    """Refuse a prior and a policy whose token ids mean different things.

    Raises:
        ModelError: Their vocabularies or end tokens differ.
    """
    first, second = prior.tokenizer, policy.tokenizer
    if first.get_vocab() != second.get_vocab() or first.eos_token_id != second.eos_token_id:
        raise ModelError(
            f"models.prior ({prior.name}) and models.policy ({policy.name}) have different vocabularies or end tokens "
            f"({len(first)} and {len(second)} tokens; ends {first.eos_token!r} and {second.eos_token!r}). "
            "log P(y|x) and log Q(y|a,x) must be of the same tokens: use models of one family."
        )
