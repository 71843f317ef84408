"""The command line: light where nothing heavy is asked for, and plain where there is no run."""

import resource
import subprocess
import sys

import pytest

from steerlm_core.store import open_store
from steerlm_core.store.sealed import seal
from tests.in_process import STEERLM


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
