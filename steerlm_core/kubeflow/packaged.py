"""The compiled pipeline that comes with the library.

It has one place in the repository, `pipelines/steerlm_v2/pipeline.yaml`; a wheel carries a copy beside this file.
"""

from __future__ import annotations

from pathlib import Path

from kfp import components
from kfp.components import YamlComponent


def pipeline_path() -> Path:
    """Return where the compiled pipeline lies: in the installed package, or in the checkout."""
    packaged = Path(__file__).with_name("pipeline.yaml")
    return packaged if packaged.exists() else Path(__file__).parents[2] / "pipelines" / "steerlm_v2" / "pipeline.yaml"


def load_pipeline() -> YamlComponent:
    """Load the compiled pipeline; called with its parameters, it runs under kfp.local."""
    return components.load_component_from_file(str(pipeline_path()))
