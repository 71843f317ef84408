import json
import os

import numpy as np
import pytest
from transformers import AutoTokenizer

from steerlm_core.attributes import AttributeSpec
from steerlm_core.embedded import stories as grammar
from steerlm_core.embedded.annotated import ATTRIBUTE_TEXTS, BOOTSTRAP_TEXTS, annotated_stories
from steerlm_core.embedded.stories import all_prompts, write_stories
from steerlm_core.embedded.tokenizer import train_tokenizer
from steerlm_core.raters import LEXICON, measure
from steerlm_core.training.base_model import INFO_FILE, BaseConfig, base_model

RATERS = {"verbosity": "short_word_count", "mood": "sentiment", "richness": "long_words"}
ATTRIBUTES = [AttributeSpec(name=name) for name in RATERS]
TINY = BaseConfig(hidden=16, layers=1, heads=2, intermediate=32, stories=96, validation_stories=8, batch=16)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(write_stories(1500, seed=1))


def test_stories_are_a_function_of_seed_and_stream():
    assert write_stories(5, seed=1) == write_stories(5, seed=1)
    assert write_stories(5, seed=1) != write_stories(5, seed=2)
    assert write_stories(5, seed=1) != write_stories(5, seed=1, stream=1)


def test_there_are_prompts_enough_and_stories_answer_them():
    prompts = all_prompts()
    assert len(set(prompts)) == len(prompts) >= 600
    for story in write_stories(300, seed=3):
        assert story.prompt in prompts
        subject = next(s for s in grammar.SUBJECTS if f" a {s} " in story.prompt)
        assert f" {subject} " in story.text
        others = set(grammar.SUBJECTS) - {subject}
        assert not others & set(story.text.replace(".", "").split())


def test_every_length_from_four_words_to_twenty_seven_occurs():
    lengths = [len(story.text.split()) for story in write_stories(2000, seed=4)]
    assert set(lengths) == set(range(4, 28))


def test_every_level_is_common_and_attributes_are_independent():
    measured = np.array([measure(s.text, RATERS, list(RATERS)) for s in write_stories(3000, seed=5)])
    for column in np.floor(measured + 0.5).astype(int).T:
        assert (np.bincount(column, minlength=5) / len(column) > 0.1).all()
    correlation = np.corrcoef(measured.T) - np.eye(3)
    assert np.abs(correlation).max() < 0.08


def test_words_of_the_grammar_have_the_mood_and_the_length_of_their_slot():
    for levels in grammar.MOOD_SLOTS.values():
        for mood, words in enumerate(levels):
            for word in (*words[0], *words[1]):
                assert LEXICON.get(word, 0) == mood - 2, word
    for plain, long in (
        *grammar.NEUTRAL_SLOTS.values(),
        *(w for levels in grammar.MOOD_SLOTS.values() for w in levels),
    ):
        assert max(map(len, plain)) < 7 <= min(map(len, long))
    for word in (w for words in grammar.NEUTRAL_SLOTS.values() for part in words for w in part):
        assert word not in LEXICON


def test_words_are_single_tokens_and_any_text_round_trips(tokenizer):
    words = {word for story in write_stories(1000, seed=6) for word in story.text.replace(".", "").split()}
    assert all(len(tokenizer.encode(f" {word}")) == 1 for word in words - {"The", "It", "Then"})
    for text in ("Ünïcode 🦊\t 12 345 <x>\n\n", "verbosity: 10", "", " leading and trailing "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_level_of_an_attribute_is_one_token(tokenizer):
    tokens = tokenizer.tokenize("[verbosity:0,mood:4,richness:2]\n")
    assert tokens == ["[", "verbosity:0", ",", "mood:4", ",", "richness:2", "]", "Ċ"]
    assert tokenizer.decode(tokenizer.encode("[toxicity:12,mood:9]\n")) == "[toxicity:12,mood:9]\n"


def test_annotated_stories_carry_integer_levels_and_streams_differ():
    first = annotated_stories(50, 1, ATTRIBUTE_TEXTS, ATTRIBUTES, RATERS)
    second = annotated_stories(50, 1, BOOTSTRAP_TEXTS, ATTRIBUTES, RATERS)
    assert {level for text in first for level in text.levels} == {0, 1, 2, 3, 4}
    assert [text.response for text in first] != [text.response for text in second]


def test_the_base_model_is_made_once_and_found_again(tmp_path):
    seen = []
    folder = base_model(1, tmp_path, lambda *said: seen.append(said), TINY)
    assert seen == [(step, 6, "steps") for step in range(1, 7)]
    loss = json.loads((folder / INFO_FILE).read_text())["validation_loss"]
    assert 0 < loss < np.log(AutoTokenizer.from_pretrained(folder).vocab_size) + 0.5
    before = os.stat(folder / "model.safetensors").st_mtime_ns
    assert base_model(1, tmp_path, config=TINY) == folder
    assert os.stat(folder / "model.safetensors").st_mtime_ns == before
    assert base_model(2, tmp_path, config=TINY) != folder
    assert not list(folder.parent.glob(".making-*"))
