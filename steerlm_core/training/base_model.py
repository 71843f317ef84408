"""The embedded base model: a tiny Llama, pre-trained on stories of the grammar, cached between runs.

It learns to answer a prompt (without label) with a story and the end token, so it is the prior P(y|x)
of the demo, and the trunk of its attribute model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from steerlm_core.config import PromptFormat, cache_home
from steerlm_core.embedded import EMBEDDED
from steerlm_core.embedded.annotated import PRETRAINING, PRETRAINING_VALIDATION
from steerlm_core.embedded.stories import Story, write_stories
from steerlm_core.embedded.tokenizer import train_tokenizer
from steerlm_core.models.outline import Outline, read_outline
from steerlm_core.progress import Progress, unheard
from steerlm_core.prompts import prompt_ids
from steerlm_core.training.supervised import Example, Trainer, batches, cosine, validation_loss

INFO_FILE = "pretraining.json"
_STORIES_IN_KEY = 100


@dataclass(frozen=True)
class BaseConfig:
    """Size of the model and of its training; part of the cache key."""

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 352
    context: int = 256
    stories: int = 14_000
    validation_stories: int = 256
    batch: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    final_rate: float = 0.05
    weight_decay: float = 0.01


def base_model(
    seed: int,
    cache: Path | None = None,
    progress: Progress = unheard,
    config: BaseConfig | None = None,
) -> Path:
    """Return the folder of the embedded base model, training it first unless the cache holds it.

    Args:
        seed: Seed of corpus, initial weights and order.
        cache: Root of the cache; default $STEERLM_CACHE or ~/.cache/steerlm.
        progress: Told how many steps are done.
        config: Size and training; tests make smaller ones.
    """
    config = config or BaseConfig()
    folder = _folder(seed, cache, config)
    if not (folder / INFO_FILE).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
        try:
            _pretrain(seed, config, scratch, progress)
            _publish(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def base_outline(seed: int, cache: Path | None = None, config: BaseConfig | None = None) -> Outline:
    """Return the outline of the embedded base model: its tokenizer takes seconds where its weights take a minute.

    Args:
        seed: As for `base_model`.
        cache: As for `base_model`; nothing is written to it.
        config: As for `base_model`.
    """
    config = config or BaseConfig()
    folder = _folder(seed, cache, config)
    if (folder / INFO_FILE).is_file():
        return read_outline(folder, EMBEDDED)
    tokenizer = train_tokenizer(write_stories(config.stories, seed, PRETRAINING))
    return Outline(EMBEDDED, tokenizer, config.context)


def _folder(seed: int, cache: Path | None, config: BaseConfig) -> Path:
    return (cache or cache_home()) / "stories" / _key(seed, config)


def _key(seed: int, config: BaseConfig) -> str:
    """Digest of all that the model depends on; a few stories stand for the grammar."""
    corpus = [story.text for story in write_stories(_STORIES_IN_KEY, seed, PRETRAINING)]
    text = json.dumps({"corpus": corpus, "seed": seed, **asdict(config)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _publish(scratch: Path, folder: Path) -> None:
    """Move a finished folder into the cache; where another process was faster, its folder stays."""
    try:
        os.replace(scratch, folder)
    except OSError:
        if not (folder / INFO_FILE).is_file():
            raise


def _pretrain(seed: int, config: BaseConfig, folder: Path, progress: Progress) -> None:
    stories = write_stories(config.stories, seed, PRETRAINING)
    tokenizer = train_tokenizer(stories)
    examples = _examples(stories, tokenizer)
    held_out = _examples(write_stories(config.validation_stories, seed, PRETRAINING_VALIDATION), tokenizer)
    model = _new_model(config, tokenizer, seed)
    trainer = Trainer(model, config.learning_rate, config.weight_decay, config.warmup_steps)
    total = math.ceil(len(examples) / config.batch)
    for step, batch in enumerate(batches(examples, config.batch, seed, epoch=0)):
        trainer.step(batch, cosine(step / total, config.final_rate))
        progress(step + 1, total, "steps")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    info = {**asdict(config), "seed": seed, "validation_loss": validation_loss(model, held_out)}
    (folder / INFO_FILE).write_text(json.dumps(info, indent=2) + "\n")


def _examples(stories: list[Story], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """One example a story; the prompt, whose words are random, is read but not learned."""
    prompts = {story.prompt: None for story in stories}
    prompt_of = {prompt: prompt_ids(prompt, None, PromptFormat(), tokenizer) for prompt in prompts}
    texts = tokenizer([story.text for story in stories], add_special_tokens=False)["input_ids"]
    end = int(tokenizer.eos_token_id)
    return [
        Example((*prompt_of[s.prompt], *ids, end), len(prompt_of[s.prompt]))
        for s, ids in zip(stories, texts, strict=True)
    ]


def _new_model(config: BaseConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context,
            # Tied, the tokens of labels, which no story holds, would all be pushed to one place.
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.02,
        )
    )
