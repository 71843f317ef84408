"""The prompt set: drawn once from the seed, splits apart, and every unusable line named."""

import itertools
import json
from pathlib import Path

import pytest

from steerlm_core.config import RunConfig, parse_config
from steerlm_core.errors import DataError, PromptTooLongError
from steerlm_core.steps import prompt_set
from steerlm_core.steps.prompt_set import Pair, draw_pairs, read_prompts, tokenise

PROMPTS = [f"prompt {number}" for number in range(40)]


def _config(seed: int = 1, **prompts: object) -> RunConfig:
    return parse_config(
        {
            "seed": seed,
            "attributes": [{"name": "length", "high": 2}, {"name": "mood", "high": 1}],
            "models": {"prior": "none"},
            "prompts": {"train": 20, "held_out": 10, **prompts},
            "generate": {"max_new_tokens": 8},
        },
        "test",
    )


def _source(folder: Path, *lines: object) -> str:
    path = folder / "prompts.jsonl"
    text = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(text), encoding="utf-8")
    return str(path)


class Letters:
    """A tokenizer of one token a letter."""

    chat_template = None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]

    def apply_chat_template(self, conversation: object, **options: object) -> str:
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------------- draws


def test_the_same_seed_draws_the_same_pairs_and_another_others():
    assert draw_pairs(PROMPTS, _config()) == draw_pairs(PROMPTS, _config())
    assert draw_pairs(PROMPTS, _config(seed=2)) != draw_pairs(PROMPTS, _config())


@pytest.mark.parametrize(("train", "held_out"), [(20, 10), (27, 13), (150, 40), (1, 200)])
def test_splits_have_their_size_no_pair_twice_and_no_prompt_in_common(train, held_out):
    pairs = draw_pairs(PROMPTS, _config(train=train, held_out=held_out))
    of = {split: [pair for pair in pairs if pair.split == split] for split in ("train", "held_out")}
    assert {split: len(some) for split, some in of.items()} == {"train": train, "held_out": held_out}
    assert len({pair.group_id for pair in pairs}) == train + held_out
    assert not {pair.prompt for pair in of["train"]} & {pair.prompt for pair in of["held_out"]}


def test_every_possible_pair_can_be_drawn():
    pairs = draw_pairs(["a", "b", "c"], _config(train=12, held_out=6))
    assert len({(pair.prompt, *pair.target.items()) for pair in pairs}) == 18


def test_uniform_targets_cover_every_level():
    found = {tuple(pair.target.values()) for pair in draw_pairs(PROMPTS, _config(train=100, held_out=20))}
    assert found == set(itertools.product(range(3), range(2)))


def test_given_targets_are_taken_in_turn_in_label_order():
    pairs = draw_pairs(PROMPTS, _config(targets=[{"mood": 1, "length": 2}, {"length": 0}]))
    assert [list(pair.target.items()) for pair in pairs[:3]] == [
        [("length", 2), ("mood", 1)],
        [("length", 0)],
        [("length", 2), ("mood", 1)],
    ]


@pytest.mark.parametrize(
    ("settings", "most", "split"),
    [
        ({"train": 100_000, "held_out": 5}, 39 * 6, "train"),
        ({"train": 1_000_000_000, "held_out": 2, "targets": [{"mood": 1}, {"mood": 0}, {"mood": 1}]}, 39 * 2, "train"),
        ({"train": 100_000, "held_out": 10}, 6, "held_out"),
        ({"train": 1, "held_out": 235}, 39 * 6, "held_out"),
    ],
)
def test_an_impossible_request_is_refused_before_a_pair_of_it_is_drawn(monkeypatch, settings, most, split):
    drawn: list[Pair] = []

    def draw(*arguments: object) -> Pair:
        drawn.append(Pair(*arguments))
        return drawn[-1]

    monkeypatch.setattr(prompt_set, "Pair", draw)
    with pytest.raises(DataError, match=rf"only {most} distinct {split} pairs .* lower prompts\.train and"):
        draw_pairs(PROMPTS, _config(**settings))
    assert split not in {pair.split for pair in drawn}


@pytest.mark.parametrize("prompts", [[], ["only"]])
def test_one_prompt_cannot_be_split(prompts):
    with pytest.raises(DataError, match="one prompt only"):
        draw_pairs(prompts, _config())


# --------------------------------------------------------------------------------------------------------- files


def test_prompts_are_read_in_order_once_each(tmp_path):
    lines = [{"text": "b"}, "", {"text": ["a", "then"]}, {"text": "b", "more": 1}, "  ", {"text": "c"}]
    config = _config(source=_source(tmp_path, *lines), field="text")
    assert read_prompts(config) == (["b", "a", "c"], [])


@pytest.mark.parametrize("break_", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c"])
def test_only_newlines_end_a_line(tmp_path, break_):
    text = f"one{break_}prompt"
    line = json.dumps({"prompt": text}, ensure_ascii=False)
    assert read_prompts(_config(source=_source(tmp_path, line, {"prompt": "two"})))[0] == [text, "two"]


def test_windows_line_ends_are_no_part_of_a_prompt(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "a"}\r\n\r\n{"prompt": "b"}\r\n')
    assert read_prompts(_config(source=str(path))) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a"', "not valid JSON"),
        ('["a"]', "expected a JSON object, found list"),
        ('{"text": "a"}', r"no text under the key 'prompt' \(keys: text\)"),
        ('{"prompt": " "}', "no text under the key 'prompt'"),
        ('{"prompt": 3}', "no text under the key 'prompt'"),
        ('{"prompt": []}', "no text under the key 'prompt'"),
        ("{}", r"no text under the key 'prompt' \(keys: none\)"),
    ],
)
def test_an_unusable_line_is_named_by_its_number(tmp_path, line, said):
    source = _source(tmp_path, {"prompt": "a"}, "", line, {"prompt": "b"})
    with pytest.raises(DataError, match=rf"prompts\.jsonl:3: {said}.*max_bad_lines"):
        read_prompts(_config(source=source))


def test_bad_lines_up_to_the_share_allowed_are_counted_and_reported(tmp_path):
    source = _source(tmp_path, "x", {"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}, "y", *[{"prompt": "d"}] * 3)
    prompts, bad = read_prompts(_config(source=source, max_bad_lines=0.25))
    assert prompts == ["a", "b", "c", "d"]
    assert [line.partition(": ")[0] for line in bad] == [f"{source}:1", f"{source}:5"]
    with pytest.raises(DataError, match=r":1: not valid JSON.*\(and 1 more\)"):
        read_prompts(_config(source=source, max_bad_lines=0.24))


def test_a_file_that_is_missing_empty_or_no_text_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"prompts\.source: .*nowhere.* cannot be read"):
        read_prompts(_config(source=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="holds no prompt"):
        read_prompts(_config(source=_source(tmp_path, "", "  ")))
    (tmp_path / "binary").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(_config(source=str(tmp_path / "binary")))


# ------------------------------------------------------------------------------------------------------- tokens


def test_the_table_holds_the_ids_of_both_prompts():
    config = _config()
    pairs = draw_pairs(PROMPTS, config)
    rows = tokenise(pairs, config, Letters(), None).to_pylist()
    assert [row["group_id"] for row in rows] == [pair.group_id for pair in pairs]
    for pair, row in zip(pairs, rows, strict=True):
        label = f"length:{pair.target['length']},mood:{pair.target['mood']}"
        assert "".join(map(chr, row["policy_prompt_ids"])) == f"{pair.prompt}\n[{label}]\n"
        assert "".join(map(chr, row["prior_prompt_ids"])) == f"{pair.prompt}\n"
        assert dict(row["target"]) == pair.target


def test_a_prompt_that_leaves_no_room_for_the_response_is_refused():
    prompts = ["x" * 10, "y" * 10]
    config = _config(train=1, held_out=2)
    pairs = draw_pairs(prompts, config)
    needed = len("x" * 10 + "\n[length:0,mood:0]\n") + config.generate.max_new_tokens
    assert tokenise(pairs, config, Letters(), needed).num_rows == 3
    with pytest.raises(PromptTooLongError, match=rf"has {needed - 8} tokens; .*= 8 .*context of {needed - 1}"):
        tokenise(pairs, config, Letters(), needed - 1)
