"""The pipeline as it is submitted: its inputs, the arguments they are given, and the name of its version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from steerlm_core import __version__
from steerlm_core.config import RunConfig
from steerlm_core.errors import ConfigError, did_you_mean
from steerlm_core.kubeflow import chain
from steerlm_core.kubeflow.packaged import pipeline_path
from steerlm_core.kubeflow.platform import write_pipeline
from steerlm_core.kubeflow.size import Workflow
from steerlm_core.platform import PlatformConfig, StepsConfig

_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "STRUCT": (dict,),
    "LIST": (list,),
}


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        path: The YAML file.
        limit: Bytes that the Workflow of a run of it may have.
    """

    path: Path
    limit: int = StepsConfig().max_workflow_size

    @cached_property
    def _spec(self) -> dict[str, Any]:
        return next(doc for doc in yaml.load_all(self.path.read_bytes(), yaml.CSafeLoader) if "pipelineInfo" in doc)

    @property
    def name(self) -> str:
        """Name of the pipeline."""
        return str(self._spec["pipelineInfo"]["name"])

    @property
    def description(self) -> str:
        """What the pipeline says of itself."""
        return str(self._spec["pipelineInfo"].get("description", ""))

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """The pipeline's parameters by name, as the compiler describes them."""
        found: dict[str, dict[str, Any]] = self._spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return found

    @property
    def room(self) -> int:
        """Most iterations that it was compiled for."""
        return chain.room(self._spec["components"])

    def check_size(self, arguments: Mapping[str, Any]) -> None:
        """Refuse a run that Argo would end; where nobody says how many iterations, all are at work.

        Raises:
            ConfigError: It would.
        """
        iterations = min(arguments.get("max_iterations") or self.room, self.room)
        workflow = Workflow(self._spec, self.path.stat().st_size, self.limit)
        workflow.check(iterations, arguments.get("shards") or 1)

    @cached_property
    def digest(self) -> str:
        """sha256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def version(self) -> str:
        """Name of the pipeline's version: that of the library, and of what was compiled."""
        return f"{__version__}-{self.digest[:8]}"


def packaged() -> Package:
    """Return the pipeline that comes with the library."""
    return Package(pipeline_path())


def package_for(
    folder: Path, platform: PlatformConfig | None = None, image: str | None = None, iterations: int | None = None
) -> Package:
    """Return the pipeline as it is submitted to a cluster.

    Args:
        folder: Where it is written, unless it is the packaged one.
        platform: The cluster; none: its defaults, or, without an image too, the packaged pipeline.
        image: Image of the steps where the platform names none.
        iterations: Wanted room; there is never less than in the packaged one.
    """
    package = packaged()
    more = iterations if iterations is not None and iterations > package.room else None
    if platform is None and image is None and more is None:
        return package
    if image is not None:
        platform = platform or PlatformConfig()
        name = platform.image.name or image
        platform = platform.model_copy(update={"image": platform.image.model_copy(update={"name": name})})
    path = folder / "pipeline.yaml"
    write_pipeline(path, platform, more)
    return Package(path, (platform or PlatformConfig()).steps.max_workflow_size)


def plain(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as KFP takes it: without nulls, which are what a missing key means anyway."""
    return config.model_dump(mode="json", exclude_none=True)


def check_arguments(package: Package, arguments: Mapping[str, Any]) -> None:
    """Check arguments against the pipeline's inputs.

    Raises:
        ConfigError: One is unknown, has the wrong type, or is missing; with the nearest known name. Or a run of so
            many iterations and shards could not finish.
    """
    inputs = package.inputs
    for name, value in arguments.items():
        if name not in inputs:
            known = ", ".join(sorted(inputs))
            raise ConfigError(
                f"{name}: the pipeline {package.name} has no such input{did_you_mean(name, inputs)} (it has {known})."
            )
        _check_type(name, value, inputs[name]["parameterType"])
    missing = [name for name, spec in inputs.items() if name not in arguments and not spec.get("isOptional")]
    if missing:
        raise ConfigError(f"{', '.join(sorted(missing))}: the pipeline {package.name} needs it; give it.")
    package.check_size(arguments)


def _check_type(name: str, value: Any, kind: str) -> None:
    wanted = _TYPES[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "BOOLEAN"):
        raise ConfigError(f"{name}: {value!r} is no {kind}; the pipeline takes one.")
