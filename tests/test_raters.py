import math

import pytest

from steerlm_core.errors import ConfigError
from steerlm_core.raters import LEXICON, RATERS, long_words, measure, sentiment, short_word_count, word_count

ENGLISH = (
    "In the middle of the nineteenth century, several engineers proposed an extraordinarily ambitious "
    "railway through the mountains; none of them lived to see it finished, and two died in despair."
)


@pytest.mark.parametrize("rater", RATERS.values())
@pytest.mark.parametrize("text", ["", "…", "12345", "Héllo wörld!", ENGLISH, "joy " * 500, "awful " * 500])
def test_every_rater_stays_in_range_on_any_text(rater, text):
    assert 0 <= rater(text) <= 4


def test_word_count_is_logarithmic_and_monotone():
    levels = [word_count("word " * count) for count in range(1, 60)]
    assert levels == sorted(levels)
    assert word_count("one two three four five") == 0
    assert word_count("word " * 40) == 4
    assert word_count("word " * 14) == pytest.approx(1.98, abs=0.01)
    assert short_word_count("word " * 4) == 0
    assert short_word_count("word " * 24) == 4


def test_sentiment_orders_texts_by_feeling():
    texts = ["A horrible, dreadful day.", "A dull day.", "A day.", "A nice day.", "A superb, glorious day of joy."]
    levels = [sentiment(text) for text in texts]
    assert levels == sorted(levels)
    assert levels[2] == 2
    assert [round(level) for level in levels] == [0, 1, 2, 3, 4]


def test_sentiment_does_not_depend_on_length():
    assert sentiment("A superb day. " * 20) == pytest.approx(sentiment("A superb day."), abs=0.5)


def test_a_negation_turns_the_sign():
    assert sentiment("It was not good.") < 2 < sentiment("It was good.")
    assert sentiment("No fear.") > 2


def test_no_word_has_two_feelings():
    assert set(LEXICON.values()) == {-2, -1, 1, 2}
    assert LEXICON["joy"] == 2
    assert LEXICON["sad"] == -1


def test_long_words_is_a_share():
    assert long_words("The cat sat on the mat.") == 0
    assert long_words("Enormous elephants notwithstanding.") == 4
    assert long_words("Seven letters are long; six at length not.") == pytest.approx(1)
    assert 1 < long_words(ENGLISH) < 4


def test_measure_follows_the_order_of_the_attributes_and_marks_what_has_no_rater():
    levels = measure(
        "joy joy joy joy joy", {"mood": "sentiment", "verbosity": "word_count"}, ["verbosity", "x", "mood"]
    )
    assert levels[0] == 0
    assert math.isnan(levels[1])
    assert levels[2] > 3.5


def test_an_unknown_rater_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"raters\.mood: unknown rater 'sentimnt'; did you mean 'sentiment'\?"):
        measure("text", {"mood": "sentimnt"}, ["mood"])
