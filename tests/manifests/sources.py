"""The manifests as they stand in the repository, for tests that need no kubectl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFESTS = ROOT / "manifests"
RELEASE = MANIFESTS / "base" / "release.yaml"
PLATFORMS = sorted(MANIFESTS.rglob("platform.yaml"))
OVERLAYS = sorted(folder.name for folder in (MANIFESTS / "overlays").iterdir())
_NO_OBJECTS = ("alerts.yaml", "alerts_test.yaml", "kustomization.yaml", "platform.yaml")


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def objects(*kinds: str) -> list[dict[str, Any]]:
    """Return the Kubernetes objects of these kinds in all files; of every kind where none is named."""
    files = (path for path in sorted(MANIFESTS.rglob("*.yaml")) if path.name not in _NO_OBJECTS)
    return [d for path in files for d in documents(path) if not kinds or d["kind"] in kinds]


def one(kind: str, name: str) -> dict[str, Any]:
    """Return the one object of this kind and name."""
    (found,) = (d for d in objects(kind) if d["metadata"]["name"] == name)
    return found
