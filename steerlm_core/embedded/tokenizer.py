"""A byte-level BPE tokenizer trained on the stories: every word of the grammar is one token, any text round-trips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from steerlm_core.attributes import format_label
from steerlm_core.embedded.stories import Story

VOCABULARY = 768
END_TOKEN = "<end>"
PAD_TOKEN = "<pad>"

# So that these names are single tokens in a label string; other names are spelt in pieces.
_NAMES = ("verbosity", "mood", "richness", "helpfulness", "complexity")
_LEVELS = 10
# Labels are rare beside the words of the stories, and merges are made by frequency.
_LABEL_REPEATS = 200


def train_tokenizer(stories: Iterable[Story]) -> PreTrainedTokenizerFast:
    """Train the tokenizer on prompts, stories and label strings.

    Returns:
        A tokenizer without a beginning-of-sequence token, whose end token is `END_TOKEN`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_TOKEN, PAD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(stories), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_TOKEN, pad_token=PAD_TOKEN, clean_up_tokenization_spaces=False
    )


def _texts(stories: Iterable[Story]) -> Iterator[str]:
    for story in stories:
        yield f"{story.prompt}\n{story.text}"
    for _ in range(_LABEL_REPEATS):
        for level in range(_LEVELS):
            yield f"[{format_label(dict.fromkeys(_NAMES, level))}]\n"
