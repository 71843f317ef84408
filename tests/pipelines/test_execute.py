"""What a compiled pipeline's command finds: the components, in a checkout and where a wheel is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.wheel import WheelBuilder

from steerlm_core.errors import ConfigError
from steerlm_core.kubeflow import execute
from tools.component_readmes import component_folders

ROOT = Path(__file__).parents[2]
BESIDE = "steerlm_core/kubeflow/components"


def test_every_component_is_found_in_the_checkout():
    for folder in component_folders():
        assert execute.component_path(folder.name) == folder / "component.py"


def test_a_wheel_carries_the_components_beside_what_runs_them_and_installs_no_package_of_theirs():
    carried = {Path(each.distribution_path).as_posix() for each in WheelBuilder(str(ROOT)).recurse_included_files()}
    components = {f"{BESIDE}/{folder.parent.name}/{folder.name}/component.py" for folder in component_folders()}
    assert {path for path in carried if path.startswith(BESIDE)} == components
    assert {path.split("/")[0] for path in carried} == {"steerlm_core"}


def test_the_image_is_built_from_the_components_too():
    assert "!components" in (ROOT / ".dockerignore").read_text().splitlines()


def test_where_a_wheel_is_installed_its_own_components_are_taken(tmp_path):
    installed = tmp_path / BESIDE
    shutil.copytree(ROOT / "components", installed)
    shutil.copy(execute.__file__, installed.parent / "execute.py")
    assert _loaded(installed.parent / "execute.py").component_path("gate") == installed / "evaluation/gate/component.py"


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("installed_execute", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pipeline_of_another_release_than_the_image_is_named():
    with pytest.raises(
        ConfigError, match=r"label: steerlm \S+, which this image holds, has no such component; compile"
    ):
        execute.component_path("label")


def test_a_step_starts_without_kfps_compiler_and_client():
    code = (
        "import sys; from steerlm_core.kubeflow import execute; sys.argv = ['', 'kfp.dsl.executor_main', "
        "'--function_to_execute', 'gate', '--executor_input', '{']\n"
        "try: execute.main()\n"
        "except ValueError: print(sorted({'kfp.compiler', 'kfp.client', 'torch'} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
