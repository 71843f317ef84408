"""`steerlm init` and `validate`: mistakes are explained and leave nothing behind."""

import json
from pathlib import Path

import pytest

from tests.in_process import Steerlm
from tests.tiny import write_settings


def _put(settings: dict, place: str, value: object) -> None:
    *sections, key = place.split(".")
    for section in sections:
        settings = settings[section]
    settings[key] = value


MISTAKES = {
    "misspelt key": ("generate.candidatess", 4, ["generate.candidatess: unknown key", "did you mean 'candidates'?"]),
    "misspelt section": ("prompt", {}, ["prompt: unknown key", "did you mean 'prompts'?"]),
    "unknown attribute": ("prompts.targets", [{"verbosty": 1}], ["prompts.targets[0]", "did you mean 'verbosity'?"]),
    "level out of range": ("prompts.targets", [{"mood": 9}], ["mood is 9", "from 0 to 4"]),
    "level is no integer": ("prompts.targets", [{"mood": 1.5}], ["prompts.targets", "1.5"]),
    "unknown rater": ("raters.mood", "sentimental", ["raters.mood", "did you mean 'sentiment'?"]),
    "rater of no attribute": ("raters.moood", "sentiment", ["unknown attribute 'moood'", "did you mean 'mood'?"]),
    "no such model": ("models.prior", "no/such/folder", ["models.prior", "'no/such/folder'"]),
    "no such package": ("models.prior", "package:no_such_module/a.gguf", ["models.prior", "'no_such_module'"]),
    "wrong type": ("train.epochs", "many", ["train.epochs", "'many'"]),
    "missing prompt file": ("prompts.source", "no-such.jsonl", ["prompts.source", "'no-such.jsonl' cannot be read"]),
    "prompt too long": ("generate.max_new_tokens", 250, ["generate.max_new_tokens", "context of 256"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_mistake_in_the_configuration(steerlm, tmp_path, settings, command, mistake):
    place, value, said = MISTAKES[mistake]
    _put(settings, place, value)
    _refused(steerlm, tmp_path, settings, command, said)


PROMPT_FILES = {
    "empty": ("", ["holds no prompt"]),
    "malformed line": ('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": \n', ["prompts.jsonl:3", "not valid JSON"]),
    "no object": ('{"prompt": "a"}\n["b"]\n', ["prompts.jsonl:2", "expected a JSON object, found list"]),
    "other key": ('{"question": "a"}\n', ["prompts.jsonl:1", "no text under the key 'prompt' (keys: question)"]),
    "empty prompt": ('{"prompt": "  "}\n', ["prompts.jsonl:1", "no text under the key 'prompt'"]),
    "one prompt": ('{"prompt": "a"}\n', ["one prompt only"]),
    "one long prompt": ('{"prompt": "a"}\n' + json.dumps({"prompt": "fox " * 300}), ["tokens", "context of 256"]),
}


@pytest.mark.parametrize("mistake", PROMPT_FILES)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_mistake_in_the_prompts(steerlm, tmp_path, settings, command, mistake):
    text, said = PROMPT_FILES[mistake]
    (tmp_path / "prompts.jsonl").write_text(text)
    settings["prompts"] |= {"source": str(tmp_path / "prompts.jsonl"), "train": 2, "held_out": 2}
    _refused(steerlm, tmp_path, settings, command, said)


def _refused(steerlm: Steerlm, folder: Path, settings: dict, command: str, said: list[str]) -> None:
    root = folder / "root"
    path = write_settings(folder, settings)
    ended = steerlm(command, path, *(["--root", root] if command == "run" else []))
    assert ended.code == 2
    assert not [word for word in said if word not in ended.err]
    assert "Traceback" not in ended.err
    assert not root.exists()


def test_a_line_that_may_be_skipped_is_named(steerlm, tmp_path, settings):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\nbroken\n{"prompt": "b"}\n{"prompt": "c"}\n')
    wanted = {"source": str(tmp_path / "prompts.jsonl"), "train": 2, "held_out": 2, "max_bad_lines": 0.5}
    ended = steerlm("validate", write_settings(tmp_path, {**settings, "prompts": wanted}))
    assert ended.code == 0
    assert "prompts.jsonl:2: not valid JSON" in ended.err


@pytest.mark.parametrize(
    ("text", "said"), [("a: [1", "not valid YAML"), ("- a\n", "expected a mapping"), (None, "`steerlm init` writes")]
)
def test_a_file_that_is_no_configuration(steerlm, tmp_path, text, said):
    path = tmp_path / "broken.yaml"
    if text is not None:
        path.write_text(text)
    ended = steerlm("validate", path)
    assert ended.code == 2
    assert said in ended.err


def test_every_mistake_is_named_at_once(steerlm, tmp_path, settings):
    settings["trian"] = {}
    settings["generate"]["top_pp"] = 1
    ended = steerlm("validate", write_settings(tmp_path, settings))
    assert "2 mistake(s)" in ended.err
    assert "did you mean 'train'?" in ended.err
    assert "did you mean 'top_p'?" in ended.err


@pytest.mark.parametrize("example", ["demo", "smollm2"])
def test_init_writes_an_example_that_holds_and_never_overwrites(steerlm, tmp_path, example):
    from steerlm_core.config import load_config

    path = tmp_path / "mine.yaml"
    assert steerlm("init", path, "--example", example).code == 0
    assert load_config(path).name == example
    path.write_text("mine")
    ended = steerlm("init", path, "--example", example)
    assert ended.code == 2
    assert "exists already" in ended.err
    assert path.read_text() == "mine"


def test_validate_of_the_demo_trains_nothing(steerlm, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    steerlm("init", "demo.yaml")
    ended = steerlm("validate", "demo.yaml")
    assert ended.code == 0
    assert "demo.yaml: fine" in ended.out
    assert not (tmp_path / "cache").exists()
