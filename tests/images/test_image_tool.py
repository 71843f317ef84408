"""What the build of the image takes from this machine, and what its Dockerfile promises."""

from __future__ import annotations

import re
import subprocess

import pytest

from tools import image

DOCKERFILE = (image.ROOT / "images" / "Dockerfile").read_text()


def test_pip_finds_packages_where_it_finds_them_here(monkeypatch):
    printed = ":env:.find-links='/wheels/new'\nglobal.find-links='/wheels/old'\nglobal.index-url='https://index.example/simple'\n"
    done = subprocess.CompletedProcess([], 0, printed)
    monkeypatch.setattr(image.subprocess, "run", lambda *command, **how: done)
    assert image.pip_settings() == {"find-links": "/wheels/new", "index-url": "https://index.example/simple"}


def test_only_folders_that_are_there_are_mounted(tmp_path):
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    settings = {
        "find-links": f"{tmp_path}/wheels {tmp_path}/missing https://wheels.example/all.html",
        "extra-index-url": f"file://{tmp_path}/index/simple",
        "timeout": "180",
        "cert": "relative/ca.crt",
    }
    assert image.local_folders(settings) == [f"{tmp_path}/index", f"{tmp_path}/wheels"]


def test_the_base_is_pinned_by_digest_and_every_flavour_ends_as_a_numeric_user():
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    by_name = {re.match(r"(\S+) AS (\S+)", stage)[2]: stage for stage in stages}
    assert {re.match(r"\S+", by_name[name])[0] for name in ("cpu", "cuda")} == {"run"}
    for name in ("run", "cuda"):
        assert re.findall(r"^USER (.*)$", by_name[name], re.MULTILINE)[-1] == "1000:1000"


@pytest.mark.parametrize("name", [".git/config", ".venv/bin/python", "runs/a/run.json", "tests/conftest.py", ".env"])
def test_what_is_no_source_stays_out_of_the_build(name):
    first, *allowed = [
        line for line in (image.ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    assert not [line for line in allowed if line.startswith("!") and name.startswith(line[1:].split("*")[0])]
