"""Prompt formats: how a prompt and a label become token ids.

The policy reads the prompt with the label string; the prior reads it without. Both end where the
response begins. Ids are made once, here, and stored: nothing downstream tokenises text again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from steerlm_core.attributes import format_label
from steerlm_core.config import PromptFormat
from steerlm_core.errors import ModelError

_NEMO_TURNS = "<extra_id_0>System\n{system}\n<extra_id_1>User\n{prompt}\n<extra_id_1>Assistant\n"


class Tokenizer(Protocol):
    """The little of a Hugging Face tokenizer that a prompt needs."""

    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """The text of a conversation."""


def prompt_ids(
    prompt: str, target: Mapping[str, int] | None, prompt_format: PromptFormat, tokenizer: Tokenizer
) -> list[int]:
    """Return the token ids of a prompt, up to where the response begins.

    Args:
        prompt: The user's text.
        target: Level by attribute, in label order; None for the prior's prompt.
        prompt_format: The run's format.
        tokenizer: The tokenizer of the model that will read it.
    """
    text = prompt_text(prompt, target, prompt_format, tokenizer)
    return list(tokenizer.encode(text, add_special_tokens=False))


def prompt_text(
    prompt: str, target: Mapping[str, int] | None, prompt_format: PromptFormat, tokenizer: Tokenizer
) -> str:
    """Return the text of a prompt as a model reads it; see `prompt_ids`."""
    label = format_label(target) if target is not None else None
    if prompt_format.kind == "chat":
        return _chat(prompt, label, prompt_format, tokenizer)
    if prompt_format.kind == "nemo":
        turns = _NEMO_TURNS.format(system=prompt_format.system, prompt=prompt)
        return turns if label is None else f"{turns}<extra_id_2>{label}\n"
    template = prompt_format.without_label if label is None else prompt_format.with_label
    # In one pass: braces in what is put in stay what they are.
    values = {"{prompt}": prompt, "{label}": label or ""}
    return re.sub(r"\{prompt\}|\{label\}", lambda field: values[field[0]], template)


def _chat(prompt: str, label: str | None, prompt_format: PromptFormat, tokenizer: Tokenizer) -> str:
    if not tokenizer.chat_template:
        raise ModelError("prompts.format.kind is 'chat', but the tokenizer has no chat template; use kind: template.")
    system, user = prompt_format.system, prompt
    if label is not None and prompt_format.label_in == "system":
        system = f"{system}\n{label}".strip()
    elif label is not None:
        user = f"{user}\n{label}"
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": user})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
