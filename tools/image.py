"""Build the image with buildah, on a machine that need not reach a registry.

    python -m tools.image localhost/steerlm:test --archive build/image/steerlm.tar

Without `--base`, the base is a minimal Debian made by debootstrap, once. pip in the build sees packages where pip on
this machine sees them: its configuration is handed over as a secret, and the local folders that it names are mounted.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates"
DEBIAN_IMAGE = f"localhost/steerlm-base:{DEBIAN}"
_LEFT_OVER = ("var/cache", "var/lib/apt/lists", "var/log")


def pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine; those of the environment win."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    found = [re.fullmatch(r"(.+)\.([a-z-]+)='(.*)'", line) for line in listed.splitlines()]
    settings = {m[2]: m[3] for m in found if m and m[1] != ":env:"}
    return settings | {m[2]: m[3] for m in found if m and m[1] == ":env:"}


def local_folders(settings: Mapping[str, str]) -> list[str]:
    """Return the paths of this machine that the settings name. An index's links may lead beside it: its parent."""
    folders = set()
    for value in " ".join(settings.values()).split():
        path = Path(urlsplit(value).path).parent if value.startswith("file:") else Path(value)
        if path.is_absolute() and path.exists():
            folders.add(str(path))
    return sorted(folders)


def debian() -> str:
    """Make the base image, if it is not there; return its name."""
    if subprocess.run(["buildah", "inspect", DEBIAN_IMAGE], capture_output=True).returncode == 0:
        return DEBIAN_IMAGE
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        root = Path(folder, "root")
        _run("debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", DEBIAN, str(root))
        for place in _LEFT_OVER:  # files only: apt wants its folders
            for path in (root / place).rglob("*"):
                if path.is_file():
                    path.unlink()
        container = _output("buildah", "from", "scratch")
        try:
            _run("buildah", "copy", "--quiet", container, str(root), "/")
            _run("buildah", "commit", "--quiet", container, DEBIAN_IMAGE)
        finally:
            _run("buildah", "rm", container)
    return DEBIAN_IMAGE


def build(name: str, base: str, target: str, build_args: list[str]) -> None:
    """Build a flavour of the image."""
    settings = pip_settings()
    with tempfile.NamedTemporaryFile("w", prefix="pip-") as conf:
        conf.write("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
        conf.flush()
        version = re.search(r'__version__ = "(.+)"', (ROOT / "steerlm_core/__init__.py").read_text())
        assert version
        arguments = {"BASE": base, "VERSION": version[1], "REVISION": _revision()}
        if "find-links" in settings:
            arguments["TORCH_INDEX"] = ""  # the wheel that lies there is what this machine runs with
        _run(
            *("buildah", "bud", "--isolation", "chroot", "--layers", "--file", "images/Dockerfile"),
            *("--target", target, "--tag", name, "--secret", f"id=pip.conf,src={conf.name}"),
            *(f"--volume={folder}:{folder}:ro" for folder in local_folders(settings)),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *(f"--build-arg={argument}" for argument in build_args),
            str(ROOT),
        )


def _revision() -> str:
    """The commit, marked where files differ from it; unknown outside of a checkout."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def write_archive(name: str, archive: Path) -> None:
    """Write the image as a docker archive, unless that is what stands there."""
    identity = json.loads(_output("buildah", "inspect", "--type", "image", name))["FromImageID"]
    stamp = archive.with_suffix(".id")
    if archive.exists() and stamp.exists() and stamp.read_text() == identity:
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    _run("buildah", "push", "--quiet", name, f"docker-archive:{archive}:{name}")
    stamp.write_text(identity)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name and tag of the image")
    parser.add_argument("--target", default="cpu", choices=("cpu", "cuda"), help="flavour")
    parser.add_argument("--base", help="base image; none: a Debian made here")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--archive", type=Path, help="write the image there too, for machines without a registry")
    options = parser.parse_args()
    missing = [tool for tool in ("buildah", *(() if options.base else ("debootstrap",))) if not shutil.which(tool)]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}; on Debian: apt-get install {' '.join(missing)}")
    (ROOT / "build").mkdir(exist_ok=True)
    build(options.name, options.base or debian(), options.target, options.build_arg)
    if options.archive:
        write_archive(options.name, options.archive.resolve())


if __name__ == "__main__":
    main()
