"""A process opens a run once, and from a component to the first byte that it reads is no long way."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from kfp import dsl

from steerlm_core.config import RunConfig
from steerlm_core.errors import RunStateError
from steerlm_core.kubeflow.package import plain
from steerlm_core.layout import FINISHED
from steerlm_core.store import open_store
from steerlm_core.store.run_store import RunStore
from tests.in_process import Steerlm
from tests.toy.runs import Finished
from tools.component_readmes import component_folders

FOLDERS = {folder.name: folder.parent.name for folder in component_folders()}
# Components of an iteration, in order: score does two steps.
OF_AN_ITERATION = ("generate", "score", "weigh", "train", "evaluate", "decide")
OUTPUTS = {**dict.fromkeys(OF_AN_ITERATION, 2), "score": 3, "confirm": 1, "finish": 1, "report": 2}
MOST_MODULES = 12
FIRST_READS = {"read", "read_versioned"}


def component(name: str) -> Callable[..., Any]:
    found = getattr(importlib.import_module(f"components.{FOLDERS[name]}.{name}"), name).python_func
    return found  # type: ignore[no-any-return]


def call(name: str, folder: Path, root: str, *arguments: Any) -> Any:
    """Call a component's function, with artifacts of its own where it has outputs."""
    artifacts = [dsl.Artifact(uri=str(folder / f"{name}-{number}")) for number in range(OUTPUTS.get(name, 0))]
    return component(name)(root, *arguments, *artifacts)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roots of the stores that are opened from here on, in order."""
    roots: list[str] = []
    honest = RunStore.__init__

    def counted(self: RunStore, objects: Any) -> None:
        roots.append(objects.root)
        honest(self, objects)

    monkeypatch.setattr(RunStore, "__init__", counted)
    return roots


@pytest.fixture(scope="module")
def config(toy: RunConfig) -> RunConfig:
    """One iteration of the toy world."""
    return toy.model_copy(update={"max_iterations": 1})


@pytest.mark.parametrize("under_a_base_root", [False, True])
def test_a_component_opens_its_run_once(
    tmp_path: Path, opened: list[str], config: RunConfig, under_a_base_root: bool
) -> None:
    """The base root is another root; a component that works under one opens it too, once."""
    base, root = tmp_path / "base", str(tmp_path / ("base/runs/job" if under_a_base_root else "run"))
    places = ("", str(base)) if under_a_base_root else (root, "")
    assert component("begin")("job", *places, plain(config)) == root
    assert opened == ([str(base), root] if under_a_base_root else [root])
    calls: list[tuple[str, tuple[int, ...]]] = [
        *(("prepare", ()), ("gate", (0, 1))),
        *((name, (0,)) for name in OF_AN_ITERATION),
        *(("confirm", ()), ("finish", (1,)), ("report", ())),
    ]
    working = {"prepare", *OF_AN_ITERATION, "confirm", "finish"}
    for name, arguments in calls:
        opened.clear()
        call(name, tmp_path, root, *arguments)
        wanted = [root, str(base)] if under_a_base_root and name in working else [root]
        assert opened == wanted, name
    if under_a_base_root:
        assert open_store(str(base)).exists(FINISHED)


@pytest.mark.parametrize(
    ("word", "more"), [("status", ()), ("report", ()), ("inspect", ()), ("resume", ("--max-iterations", 1))]
)
def test_a_command_opens_its_run_once(
    finished: Finished, tmp_path: Path, opened: list[str], steerlm: Steerlm, word: str, more: tuple[object, ...]
) -> None:
    root = str(shutil.copytree(finished(1), tmp_path / "run"))
    opened.clear()
    ended = steerlm(word, root, *more)
    assert ended.code == 0, ended.err
    assert opened == [root]


def test_a_new_run_is_opened_once(tmp_path: Path, opened: list[str], config: RunConfig, steerlm: Steerlm) -> None:
    path, root = tmp_path / "config.yaml", str(tmp_path / "run")
    path.write_text(config.model_dump_json(exclude_none=True))  # JSON is YAML
    ended = steerlm("run", path, "--root", root)
    assert ended.code == 0, ended.err
    assert opened == [root]


@contextmanager
def way_of(root: str, modules: list[str]) -> Iterator[None]:
    """Note our modules whose functions are handed the root, or what carries it, up to the first byte read."""
    done = False

    def carries(value: object) -> bool:
        with suppress(Exception):
            return root in (value, str(getattr(value, "root", "")))
        return False

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal done
        module = str(frame.f_globals.get("__name__"))
        if done or event != "call" or not module.startswith(("steerlm_core.", "components.")):
            return
        if any(carries(value) for value in list(frame.f_locals.values())) and module not in modules:
            modules.append(module)
        done = module in ("steerlm_core.store.local", "steerlm_core.store.s3") and frame.f_code.co_name in FIRST_READS

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert done


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "begin"])
@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_from_a_component_to_the_first_byte_read_are_few_modules(
    tmp_path: Path, name: str, place: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue("bucket") if place == "bucket" else str(tmp_path / "run")
    open_store(root).put("run.json", b"damaged: nothing follows the first read")
    arguments = (0,) if name in OF_AN_ITERATION else {"gate": (0, 1), "finish": (1,)}.get(name, ())
    modules: list[str] = []
    with pytest.raises(RunStateError, match="damaged"), way_of(root, modules):
        call(name, tmp_path, root, *arguments)
    assert 3 <= len(modules) <= MOST_MODULES, modules
