"""A byte-level BPE tokenizer trained on the stories: every word of the grammar is one token, any text round-trips.

A level of an attribute (`mood:4`) is one token too, where the name is one that the demo uses. A tiny
model learns from 320 texts what one token asks for; it does not learn that a digit belongs to the name
two tokens before it. Other names are spelt in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from steerlm_core.attributes import format_label
from steerlm_core.embedded.stories import Story

VOCABULARY = 896
END_TOKEN = "<end>"
PAD_TOKEN = "<pad>"

_NAMES = ("verbosity", "mood", "richness")
_LEVELS = 5
# What a token may span: a level of an attribute, a word with the space before it, a digit, punctuation, blanks.
_PIECE = r"[a-z_]+:\d| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Labels are rare beside the words of the stories, and merges are made by frequency.
_LABEL_REPEATS = 200


def train_tokenizer(stories: Iterable[Story]) -> PreTrainedTokenizerFast:
    """Train the tokenizer on prompts, stories and label strings.

    Returns:
        A tokenizer without a beginning-of-sequence token, whose end token is `END_TOKEN`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
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
