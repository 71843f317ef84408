"""Runs a step of the compiled pipeline, as Kubeflow starts it, by the component that this installation holds.

    python3 -m steerlm_core.kubeflow.execute kfp.dsl.executor_main --executor_input {…} --function_to_execute generate

The compiled pipeline carries no source: it would stand in every node of a run's Workflow, four times. KFP's own
executor, named first, does the rest: it reads the inputs, calls the component, and writes the outputs. Components have
one place in the repository, `components/`; a wheel carries them beside this file.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from steerlm_core import __version__
from steerlm_core.errors import ConfigError

_FUNCTION = "--function_to_execute"


def component_path(name: str) -> Path:
    """Return the file that holds a component.

    Raises:
        ConfigError: There is none of this name: the pipeline is of another release.
    """
    packaged = Path(__file__).with_name("components")
    folder = packaged if packaged.exists() else Path(__file__).parents[2] / "components"
    for path in folder.glob(f"*/{name}/component.py"):
        return path
    raise ConfigError(
        f"{name}: steerlm {__version__}, which this image holds, has no such component; compile the pipeline with the "
        "release of the image, or give the image of the pipeline's release."
    )


def main() -> None:
    """Have KFP's executor call a component, with the arguments of this process."""
    os.environ["_KFP_RUNTIME"] = "true"  # kfp leaves its compiler and its client out: a tenth of the time to start
    from kfp import dsl

    dsl.component = lambda **_: lambda function: function  # was left out too; the function is what is called
    _, executor, *given = sys.argv
    sys.argv = [executor, *given, "--component_module_path", str(component_path(given[given.index(_FUNCTION) + 1]))]
    runpy.run_module(executor, run_name="__main__")


if __name__ == "__main__":
    main()
