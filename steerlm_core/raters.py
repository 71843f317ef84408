"""Measured raters: how long, how cheerful and how elaborate a text is, by counting.

They know no model and no prompt, so they can judge what an attribute model is fooled by. Each maps
any English text to a real level from 0 to 4:

- `word_count`: number of words, on a logarithmic scale from 5 words (0) to 40 words (4).
- `short_word_count`: the same for shorter texts, from 4 words (0) to 24 words (4).
- `sentiment`: mean strength of the words of feeling, from -2 (awful, grief) to +2 (superb, joy), plus 2;
  a word right after "not", "no", "never" or "without" counts with the opposite sign; 2 where there is none.
- `long_words`: share of words of seven letters or more, from none (0) to a half (4).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from steerlm_core.errors import ConfigError, did_you_mean

Rater = Callable[[str], float]

LOWEST, HIGHEST = 0.0, 4.0

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_LONG_WORD = 7
_LARGEST_SHARE = 0.5
_NEGATIONS = {"not", "no", "never", "without", "hardly"}
# Pulls the mean toward neutral, so that one word says a little less than ten.
_PRIOR_FEELINGS = 0.25

_FEELINGS: dict[float, str] = {
    2.0: """
        amazing beloved bliss blissful brilliant celebrate celebrated delight delighted delightful ecstasy ecstatic
        excellent fantastic glee gleeful glorious glory great happiest happiness heavenly incredible joy joyful joyous
        jubilant jubilation love loved lovely loves magnificent marvellous marvelous miracle outstanding overjoyed
        perfect perfectly rapture rejoiced splendid superb terrific thrilled triumph triumphant wonder wonderful
        wonderfully""",
    1.0: """
        agreeable better bright calm calmly charming cheer cheered cheerful cheerfully comfort comfortable contented
        contentment cosy courage enjoy enjoyed enjoys fine friendly fun funny gentle gently glad gladly good graceful
        grateful happily happy hope hoped hopeful kind kindly kindness laugh laughed laughing laughter likeable luck
        lucky nice nicely optimism peace peaceful playful pleasant pleased pleasure pretty proud proudly relief safe
        serene serenity smile smiled smiling success sunny sweet sweetly thankful warm warmly warmth welcome""",
    -1.0: """
        afraid alone angry annoyed anxious bad badly bleak bored boredom boring clumsy cold concern confused cried
        cross cry difficult difficulty dim dirty disappointed discomfort doubt doubtful dreary dull fail failed fear
        feared frown frowned gloom gloomy harsh hunger hungry ill loneliness lonely lonesome lose loss lost mistake
        nervous pain poor problem regret sad sadly sadness scared shabby shame sick sorrow sorry strange tedious tired
        trouble troubled unfriendly unhappy unlucky unpleasant upset weak weakness weary worried worry wrong""",
    -2.0: """
        abuse agony anguish appalling atrocious awful cruel cruelty dead death desolate despair desperate desperation
        despised destroyed devastated devastating died disaster disgust disgusting doomed dread dreadful evil furious
        ghastly grief grim gruesome hate hated hatred heartbreak hideous hopeless horrible horrid horror hostile
        kill killed loathsome miserable misery murder nasty nightmare panic rage repulsive rotten ruined savage suffered
        suffering terrible terror torment tortured tragedy tragic vicious vile wicked worst wretched""",
}
LEXICON: dict[str, float] = {word: weight for weight, words in _FEELINGS.items() for word in words.split()}


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def word_count(text: str) -> float:
    """Rate the length: 0 up to 5 words, 4 from 40 words on, a factor of 1.68 a level."""
    return _length_level(text, fewest=5, most=40)


def short_word_count(text: str) -> float:
    """Rate the length of a short text: 0 up to 4 words, 4 from 24 words on, a factor of 1.57 a level."""
    return _length_level(text, fewest=4, most=24)


def sentiment(text: str) -> float:
    """Rate the mood: the mean weight of the words of feeling, neutral being 2."""
    words = words_of(text)
    weights = [
        -LEXICON[word] if before in _NEGATIONS else LEXICON[word]
        for before, word in zip(["", *words], words, strict=False)
        if word in LEXICON
    ]
    return _clamp(2.0 + sum(weights) / (len(weights) + _PRIOR_FEELINGS))


def long_words(text: str) -> float:
    """Rate the register: the share of words of seven letters or more."""
    words = words_of(text)
    share = sum(len(word) >= _LONG_WORD for word in words) / max(len(words), 1)
    return _clamp(HIGHEST * share / _LARGEST_SHARE)


RATERS: dict[str, Rater] = {
    "word_count": word_count,
    "short_word_count": short_word_count,
    "sentiment": sentiment,
    "long_words": long_words,
}


def check_raters(raters: Mapping[str, str], where: str = "raters") -> None:
    """Check that every attribute's rater exists.

    Raises:
        ConfigError: A rater's name is unknown.
    """
    for attribute, name in raters.items():
        if name not in RATERS:
            raise ConfigError(
                f"{where}.{attribute}: unknown rater '{name}'{did_you_mean(name, RATERS)} Raters: {', '.join(RATERS)}."
            )


def measure(text: str, raters: Mapping[str, str], attribute_names: Sequence[str]) -> list[float]:
    """Measure a text.

    Args:
        text: Any English text.
        raters: Name of the rater by attribute name.
        attribute_names: The attributes, in the order wanted.

    Returns:
        One level per attribute; NaN where an attribute has no rater.

    Raises:
        ConfigError: A rater's name is unknown.
    """
    check_raters(raters)
    return [RATERS[raters[name]](text) if name in raters else math.nan for name in attribute_names]


def _length_level(text: str, fewest: int, most: int) -> float:
    count = max(len(words_of(text)), 1)
    return _clamp(HIGHEST * math.log(count / fewest) / math.log(most / fewest))


def _clamp(level: float) -> float:
    return min(max(level, LOWEST), HIGHEST)
