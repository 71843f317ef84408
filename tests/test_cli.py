"""The command line: mistakes are explained and leave nothing behind; a tiny run works from start to export."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from steerlm_core.run import open_run
from steerlm_core.store import open_store
from steerlm_core.store.sealed import seal
from tests.in_process import STEERLM, Ended, Steerlm
from tests.tiny import tiny_settings


@pytest.fixture
def settings() -> dict:
    settings = tiny_settings()
    settings["convergence"]["patience"] = 3  # no plateau in its two iterations
    return settings


@pytest.fixture
def config(tmp_path, settings) -> Path:
    return _write(tmp_path, settings)


def _write(folder: Path, settings: dict) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _put(settings: dict, place: str, value: object) -> None:
    *sections, key = place.split(".")
    for section in sections:
        settings = settings[section]
    settings[key] = value


# ---------------------------------------------------------------------------------------------------- mistakes


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
    path = _write(folder, settings)
    ended = steerlm(command, path, *(["--root", root] if command == "run" else []))
    assert ended.code == 2
    assert not [word for word in said if word not in ended.err]
    assert "Traceback" not in ended.err
    assert not root.exists()


def test_a_line_that_may_be_skipped_is_named(steerlm, tmp_path, settings):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\nbroken\n{"prompt": "b"}\n{"prompt": "c"}\n')
    wanted = {"source": str(tmp_path / "prompts.jsonl"), "train": 2, "held_out": 2, "max_bad_lines": 0.5}
    ended = steerlm("validate", _write(tmp_path, {**settings, "prompts": wanted}))
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
    ended = steerlm("validate", _write(tmp_path, settings))
    assert "2 mistake(s)" in ended.err
    assert "did you mean 'train'?" in ended.err
    assert "did you mean 'top_p'?" in ended.err


@pytest.mark.parametrize("words", [("--backend", "torchrun"), ("--platform", "p.yaml"), ("--display", "log")])
def test_an_option_that_the_pipelines_steps_would_not_hear_of(steerlm, tmp_path, config, monkeypatch, words):
    monkeypatch.setenv("STEERLM_PLATFORM", "of-the-environment.yaml")  # which they do hear of
    ended = steerlm("run", config, "--root", tmp_path / "root", "--runner", "kfp-local", *words)
    assert ended.code == 2
    assert f"{' '.join(words)}: --runner kfp-local does not pass it on" in ended.err
    assert not (tmp_path / "root").exists()


def test_the_platform_of_the_environment_is_heard_of_however_it_is_spelt(steerlm, tmp_path, config, monkeypatch):
    ran = []
    monkeypatch.setattr("steerlm_core.commands.run.work", lambda *_: ran.append(True))
    monkeypatch.setenv("STEERLM_PLATFORM", ".//platform.yaml")
    assert steerlm("run", config, "--root", tmp_path / "root", "--runner", "kfp-local").code == 0
    assert ran


@pytest.mark.parametrize(
    "words", [("status",), ("resume",), ("inspect",), ("generate",), ("report",), ("step", "train", "--iteration", 0)]
)
def test_a_directory_without_a_run(steerlm, tmp_path, words):
    where = ("--root", tmp_path / "none") if words[0] == "step" else (tmp_path / "none",)
    ended = steerlm(*words, *where)
    assert ended.code == 2
    assert "holds no run" in ended.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [("status",), ("resume",), ("report",)])
def test_a_run_of_another_release_is_left_to_that(steerlm, tmp_path, words):
    described = {"schema_version": 0, "run_id": "old", "versions": {"steerlm": "0.0.1"}}
    open_store(str(tmp_path)).put("run.json", seal(described))
    ended = steerlm(*words, tmp_path)
    assert ended.code == 2
    assert "written by release 0.0.1 with schema version 0" in ended.err


# ------------------------------------------------------------------------------------------------- without a run


def test_help_loads_nothing_heavy():
    code = (
        "import sys, steerlm_core.cli; sys.exit(bool({'torch', 'transformers', 'pyarrow', 'kfp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_takes_less_than_a_second_of_processor_time():
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    shown = subprocess.run([*STEERLM, "--help"], check=True, capture_output=True, text=True)
    assert spent() - before < 1
    for command in ("init", "validate", "run", "resume", "status", "inspect", "generate", "step", "report", "export"):
        assert f" {command} " in shown.stdout


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


def test_doctor_says_what_it_finds(steerlm):
    ended = steerlm("doctor")
    assert ended.code == 0
    for word in ("Python", "torch", "transformers", "memory", "disk"):
        assert word in ended.out


# --------------------------------------------------------------------------------------------------- with a run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The root of a run of two iterations, made by the command itself."""
    folder = tmp_path_factory.mktemp("finished")
    return folder / "root"


@pytest.fixture
def root(finished, config, steerlm) -> Path:
    if not finished.exists():
        ended = steerlm("run", config, "--root", finished, "--display", "plain")
        assert ended.code == 0, ended.err
        (finished.parent / "shown.json").write_text(json.dumps(ended))
    return finished


def test_a_run_shows_its_iterations_and_says_how_it_ended(root):
    ended = Ended(*json.loads((root.parent / "shown.json").read_text()))
    assert [line[10:21] for line in ended.err.splitlines() if "distance" in line and " → " in line] == [
        "iteration 0",
        "iteration 1",
    ]
    last = json.loads((root / "iterations/001/commit.json").read_text())
    assert last["reason"][:40] in ended.out
    for word in ("Best policy:", "On fresh candidates", "verbosity", "Time", f"steerlm generate {root}"):
        assert word in ended.out
    assert "\x1b" not in ended.out + ended.err


def test_status_names_every_step_and_iteration(steerlm, root):
    ended = steerlm("status", root)
    assert ended.code == 0
    for word in ("prepare: done", "generate", "score_prior", "decide", "outcome", "On fresh candidates"):
        assert word in ended.out


def test_inspect_shows_tokens_and_weights_of_a_group(steerlm, root):
    ended = steerlm("inspect", root, "--iteration", 0, "--split", "train")
    assert ended.code == 0
    for word in ("target", "verbosity:", "masked in the loss", "log P(a|x,y)", "ws", "candidate 2:"):
        assert word in ended.out
    assert len(re.findall(r"\S+ -\d+\.\d\d", ended.out)) > 6
    name = ended.out.split()[1]
    assert steerlm("inspect", root, "--split", "train", "--group", name[:8]).out == ended.out
    unknown = steerlm("inspect", root, "--split", "train", "--group", "zzz")
    assert unknown.code == 2
    assert name in unknown.err


def test_inspect_adds_up(root):
    from steerlm_core.commands.inspect import read_group
    from steerlm_core.raters import sentiment, word_count
    from steerlm_core.report.run_view import RunView

    weighed, candidates = read_group(RunView(open_run(str(root))), 0, "", "held_out")
    assert [row["index"] for row in candidates] == weighed["index"]
    for row in candidates:
        assert len(row["token_log_q"]) == len(row["response_ids"])
        assert sum(row["token_log_q"]) == pytest.approx(row["log_q"], abs=1e-3)
        assert len(row["predicted"]) == 2
        assert row["measured"] == pytest.approx([word_count(row["text"]), sentiment(row["text"])], abs=1e-6)


def test_inspect_of_an_iteration_that_is_not_there(steerlm, root):
    ended = steerlm("inspect", root, "--iteration", 7)
    assert ended.code == 2
    assert "iterations/007" in ended.err


def test_generate_steers_the_prompt(steerlm, root):
    ended = steerlm(
        "generate", root, "--attributes", "verbosity:0", "--candidates", 2, "Tell me about a fox by the sea."
    )
    assert ended.code == 0
    assert ended.out.count("[verbosity:0,mood:2]  measured: verbosity ") == 2


def test_generate_without_a_prompt_shows_each_level(steerlm, root):
    ended = steerlm("generate", root, "--attributes", "verbosity:1", "--iteration", "policy-0")
    assert ended.code == 0
    assert [level for level in range(5) if f"verbosity:1,mood:{level}" in ended.out] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--attributes", "verbosty:1"), "did you mean 'verbosity'?"),
        (("--attributes", "mood:7"), "must be an integer from 0 to 4"),
        (("--attributes", "mood=1"), "not of the form name:level"),
        (("--iteration", "last"), "none of: best, policy-0"),
        (("--iteration", "9"), "This run has: policy-0, 0, 1"),
        (("--attributes", "mood:1", "fox " * 300), "context of 256"),
    ],
)
def test_generate_explains_mistakes(steerlm, root, words, said):
    ended = steerlm("generate", root, *words)
    assert ended.code == 2
    assert said in ended.err


def test_report_and_export_pass_the_result_on(steerlm, root, tmp_path):
    assert steerlm("report", root).code == 0
    assert "<h1>tiny" in (root / "report.html").read_text()
    assert steerlm("report", root, root, "--output", tmp_path / "both.html").code == 0
    assert "2 runs compared" in (tmp_path / "both.html").read_text()
    both = steerlm("report", root, root, "--output", tmp_path / "both.md")
    assert (both.code, "several are compared in HTML" in both.err) == (2, True)
    assert steerlm("report", root, "--output", tmp_path / "report.md").code == 0
    report = (tmp_path / "report.md").read_text()
    for word in ("## Iterations", "## Confirmation", "| verbosity |", "## Configuration", "candidates: 3"):
        assert word in report
    assert steerlm("export", root, tmp_path / "model").code == 0
    assert (tmp_path / "model" / "config.json").is_file()
    assert "[verbosity:2,mood:2]" in (tmp_path / "model" / "card.md").read_text()
    again = steerlm("export", root, tmp_path / "model")
    assert again.code == 2
    assert "exists already" in again.err


def test_step_finds_its_work_done(steerlm, root):
    ended = steerlm("step", "weigh", "--root", root, "--iteration", 1)
    assert ended.code == 0
    assert json.loads(ended.out)["groups"] == 14
    unknown = steerlm("step", "wiegh", "--root", root, "--iteration", 1)
    assert unknown.code == 2
    assert "unknown step 'wiegh'" in unknown.err


def test_the_run_directory_of_another_configuration_is_left_alone(steerlm, root, config):
    before = _files(root)
    ended = steerlm("run", config, "--root", root, "--seed", 7)
    assert ended.code == 2
    assert "another configuration" in ended.err
    assert "seed" in ended.err
    assert _files(root) == before


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(steerlm, root, config, tmp_path, monkeypatch):
    def interrupt(context):
        raise KeyboardInterrupt

    mine = tmp_path / "mine"
    with monkeypatch.context() as patch:
        patch.setattr("steerlm_core.steps.train.run", interrupt)
        ended = steerlm("run", config, "--root", mine)
    assert ended.code == 130
    assert f"steerlm resume {mine}" in ended.err
    assert "weigh" in steerlm("status", mine).out
    resumed = steerlm("resume", mine)
    assert resumed.code == 0, resumed.err
    for place in ("iterations/001/evaluation/evaluation.json", "iterations/001/commit.json"):
        assert json.loads((mine / place).read_text()) == json.loads((root / place).read_text())


def test_resume_with_more_iterations(steerlm, root, tmp_path):
    mine = tmp_path / "more"
    shutil.copytree(root, mine)
    assert not (mine / "decision.json").exists(), "a run that has decided has no more iterations"
    assert "--max-iterations 3" in steerlm("status", mine).out
    ended = steerlm("resume", mine, "--max-iterations", 3)
    assert ended.code == 0, ended.err
    assert (mine / "iterations/002/commit.json").is_file()


def test_a_root_of_its_own_where_none_is_given(steerlm, config, tmp_path, monkeypatch):
    import steerlm_core.runtime

    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def stop(run, *rest):
        asked.append(run.root)
        raise KeyboardInterrupt

    monkeypatch.setattr(steerlm_core.runtime, "run_loop", stop)
    assert steerlm("run", config, "--max-iterations", 1).code == 130
    assert asked[0].startswith(f"runs{os.sep}tiny-20")
