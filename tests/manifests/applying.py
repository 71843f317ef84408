"""Overlays, rendered by the cluster's own kubectl and applied for real."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.kit import HOME, KIT, KUBECONFIG, kubectl
from tests.manifests.sources import MANIFESTS

CRDS = KIT.parent / "crds"
_OURS = "app.kubernetes.io/part-of=steerlm"
_MADE_BY_OTHERS = ("Endpoints", "EndpointSlice", "Event", "Pod")


def with_components(overlay: str, folder: Path) -> Path:
    """Write an overlay that adds to one of ours every component but Kueue and namespace; return its folder."""
    components = [path.name for path in (MANIFESTS / "components").iterdir() if path.name not in ("kueue", "namespace")]
    components.sort(key=lambda name: name == "release")  # which comes last
    where = os.path.relpath(MANIFESTS, folder)
    text = (MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text().replace("../..", where)
    kustomization = yaml.safe_load(text)
    kustomization["components"] = [f"{where}/components/{name}" for name in components]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    for file in (MANIFESTS / "overlays" / overlay).glob("platform.yaml"):
        (folder / file.name).write_text(file.read_text())
    return folder


def render(folder: Path) -> list[dict[str, Any]]:
    """Return what an overlay renders to."""
    return [document for document in yaml.safe_load_all(kubectl("kustomize", str(folder))) if document]


def apply(folder: Path) -> list[str]:
    """Apply an overlay; return a line for each object, without a single warning of the API server."""
    command = [str(HOME / "bin/kubectl"), "--kubeconfig", str(KUBECONFIG), "apply", "-k", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@contextmanager
def applied(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Apply an overlay for a while; gives what it renders to."""
    try:
        apply(folder)
        yield render(folder)
    finally:
        kubectl("delete", "-k", str(folder), "--ignore-not-found")


def ours(namespace: str) -> set[str]:
    """Return every object of ours in the namespace, and every one that belongs to no namespace."""
    found = set()
    for scope in (("--namespaced=true",), ("--namespaced=false",)):
        kinds = kubectl("api-resources", *scope, "--verbs=list", "-o", "name").split()
        where = ("-n", namespace) if scope[0].endswith("true") else ()
        listed = json.loads(kubectl("get", ",".join(kinds), *where, "-l", _OURS, "-o", "json"))["items"]
        found |= {f"{o['kind']}/{o['metadata']['name']}" for o in listed if o["kind"] not in _MADE_BY_OTHERS}
    return found


@contextmanager
def namespace(name: str, **labels: str) -> Iterator[str]:
    """A namespace of somebody else's, with the platform's own service accounts; one that exists is left as it is."""
    there = bool(kubectl("get", "namespace", name, "--ignore-not-found"))
    if not there:
        kubectl("apply", "-f", "-", manifest={
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        })  # fmt: skip
    try:
        yield name
    finally:
        if not there:
            kubectl("delete", "namespace", name, "--ignore-not-found")  # an overlay may own it
