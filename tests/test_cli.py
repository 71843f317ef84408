"""The command line: light where nothing heavy is asked for, and plain where there is no run."""

import subprocess
import sys

import pytest

from steerlm_core.store import open_store
from steerlm_core.store.sealed import seal

HEAVY = {"boto3", "deepspeed", "kfp", "kubernetes", "numpy", "pyarrow", "scipy", "torch", "transformers"}


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


def test_help_names_the_commands_and_loads_nothing_heavy():
    code = "import sys, steerlm_core.cli as c\ntry: c.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    shown = subprocess.run([sys.executable, "-c", code, "--help"], check=True, capture_output=True, text=True)
    assert HEAVY.isdisjoint(shown.stderr.split())
    for command in ("init", "validate", "run", "resume", "status", "inspect", "generate", "step", "report", "export"):
        assert f" {command} " in shown.stdout
