"""A grammar of micro-stories, each an answer to a prompt: "Tell me about a fox by the river."

A story draws three latent traits, independent of one another and of the prompt: its length in words
(log-uniform), its mood (an integer level), and its register (the share of slots that are filled with a
long word). Sentences are chosen so that the length is met exactly; each slot is then filled by mood
and register. So every combination of short or long, sad or glad, plain or elaborate occurs.

    The lovely fox wandered in delight. It noticed the splendid lantern.

The grammar is small on purpose: a model that pre-trains for half a minute must come near its entropy, or the
distance between policy and target is mostly that model's own noise. So a story names its subject once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OPENINGS = ("Tell me about a", "Write a story of a", "What do you know of a", "Say something about a", "Describe a")
SUBJECTS = tuple("bear duck fox goat horse mouse rabbit wolf".split())
PLACES = tuple(
    f"{preposition} the {noun}"
    for preposition, nouns in {
        "by": "river lake road house",
        "in": "forest garden field valley",
        "near": "bridge mill farm tower",
        "on": "hill beach island meadow",
    }.items()
    for noun in nouns.split()
)

# Each slot: plain words (under seven letters), long words (seven or more), by mood where the slot has one.
Words = tuple[tuple[str, ...], tuple[str, ...]]


def _words(plain: str, long: str) -> Words:
    return tuple(plain.split()), tuple(long.split())


NEUTRAL_SLOTS: dict[str, Words] = {
    "MOVED": _words("ran danced", "wandered lingered"),
    "SAW": _words("saw found", "noticed discovered"),
    "THING": _words("stone bird", "lantern umbrella"),
}
MOOD_SLOTS: dict[str, tuple[Words, ...]] = {
    "KIND": (
        _words("awful vile", "horrible dreadful"),
        _words("dull bleak", "tedious unpleasant"),
        _words("small brown", "ancient ordinary"),
        _words("nice gentle", "pleasant charming"),
        _words("superb lovely", "wonderful splendid"),
    ),
    "FEELING": (
        _words("agony grief", "despair suffering"),
        _words("gloom worry", "sadness boredom"),
        _words("rain wind", "silence sunlight"),
        _words("hope cheer", "comfort pleasure"),
        _words("joy bliss", "delight happiness"),
    ),
}

FIRST_SENTENCES = (
    "The KIND SUBJECT MOVED.",
    "The SUBJECT MOVED in FEELING.",
    "The KIND SUBJECT MOVED in FEELING.",
    "The KIND SUBJECT SAW the KIND THING.",
)
NEXT_SENTENCES = (
    "It MOVED in FEELING.",
    "It SAW the KIND THING.",
    "It SAW the THING in FEELING.",
    "It SAW the KIND THING in FEELING.",
)

SHORTEST, LONGEST = 4, 28
LEVELS = 5
# Share of slots whose mood is a neighbour of the story's.
_MOOD_NOISE = 0.1
# Both parameters of the Beta distribution of the register; under 1 it favours the ends.
_REGISTER_SHAPE = 0.6


@dataclass(frozen=True)
class Story:
    """A prompt and the story that answers it."""

    prompt: str
    text: str


@dataclass(frozen=True)
class _Traits:
    words: int
    mood: int
    register: float


def all_prompts() -> list[str]:
    """Return every prompt of the grammar, in a fixed order."""
    return [f"{opening} {subject} {place}." for opening in OPENINGS for subject in SUBJECTS for place in PLACES]


def write_stories(count: int, seed: int, stream: int = 0) -> list[Story]:
    """Write `count` stories to prompts drawn with replacement.

    Args:
        count: Number of stories.
        seed: Same seed and stream, same stories.
        stream: Stories of different streams are independent: pre-training, annotated texts, ….
    """
    rng = np.random.default_rng([seed, stream])
    return [write_story(rng) for _ in range(count)]


def write_story(rng: np.random.Generator) -> Story:
    """Draw a prompt and the traits, and write the story."""
    opening, subject, place = (_pick(rng, options) for options in (OPENINGS, SUBJECTS, PLACES))
    traits = _Traits(
        words=int(np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST)))),
        mood=int(rng.integers(LEVELS)),
        register=float(rng.beta(_REGISTER_SHAPE, _REGISTER_SHAPE)),
    )
    sentences = _outline(rng, traits.words)
    text = " ".join(_fill(rng, sentence, subject, traits) for sentence in sentences)
    return Story(f"{opening} {subject} {place}.", text)


def _outline(rng: np.random.Generator, words: int) -> list[str]:
    """Choose sentences whose words add up to `words`."""
    outline = [_pick(rng, _fitting(FIRST_SENTENCES, words))]
    while rest := words - sum(map(_length, outline)):
        outline.append(_pick(rng, _fitting(NEXT_SENTENCES, rest)))
    return outline


def _fitting(sentences: Sequence[str], words: int) -> list[str]:
    """Sentences that fill `words` exactly, or leave room for a whole further one."""
    shortest = min(map(_length, NEXT_SENTENCES))
    return [s for s in sentences if _length(s) == words or _length(s) <= words - shortest]


def _length(sentence: str) -> int:
    return len(sentence.split())


def _fill(rng: np.random.Generator, sentence: str, subject: str, traits: _Traits) -> str:
    pieces = sentence.removesuffix(".").split()
    return " ".join(subject if piece == "SUBJECT" else _slot_word(rng, piece, traits) for piece in pieces) + "."


def _slot_word(rng: np.random.Generator, slot: str, traits: _Traits) -> str:
    if slot in MOOD_SLOTS:
        choices = MOOD_SLOTS[slot][_slot_mood(rng, traits.mood)]
    elif slot in NEUTRAL_SLOTS:
        choices = NEUTRAL_SLOTS[slot]
    else:
        return slot
    return _pick(rng, choices[int(rng.random() < traits.register)])


def _slot_mood(rng: np.random.Generator, mood: int) -> int:
    if rng.random() >= _MOOD_NOISE:
        return mood
    return int(np.clip(mood + rng.choice((-1, 1)), 0, LEVELS - 1))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
