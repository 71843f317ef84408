"""The image that `make image` built: what it is made of, and that it works where a cluster is strict."""

import json
import re
import tarfile

import pytest

from steerlm_core import __version__
from tests.cluster.kit import ARCHIVE, IMAGE, ROOT, kubectl, load_image, running_cluster
from tests.manifests.applying import namespace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
LARGEST = 2_000_000_000  # bytes, unpacked; images/README.md says what fills it
COMPILERS = re.compile(r"(^|/)bin/([a-z0-9_]+-)*(cc|gcc|g\+\+|c\+\+|cpp|clang|ld|as|nvcc)(-[0-9.]+)?$")
TRACES = re.compile(
    r"(^|/)(\.bash_history|\.python_history|\.cache|\.git|pip\.conf|\.netrc)(/|$)|^var/(cache/apt|lib/apt/lists|log)/."
)


@pytest.fixture(scope="module")
def archive():
    """The docker archive: its configuration, and the members of all layers."""
    with tarfile.open(ARCHIVE) as outer:
        (entry,) = json.load(outer.extractfile("manifest.json"))
        config = json.load(outer.extractfile(entry["Config"]))
        members = []
        for name in entry["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                members += layer.getmembers()
    return config["config"], members


def test_runs_as_a_numeric_user_and_says_what_it_is(archive):
    config, _ = archive
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (labels["licenses"], labels["version"]) == ("Apache-2.0", __version__)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
    assert not [name for name in config["Env"] if re.search("SECRET|TOKEN|PASSWORD|PIP_", name)]


def test_is_no_larger_than_it_says_and_carries_neither_compilers_nor_traces(archive):
    _, members = archive
    names = [member.name for member in members]
    assert "opt/packages/bin/python3" in names
    assert sum(member.size for member in members) < LARGEST
    assert [name for name in names if COMPILERS.search(name)] == []
    assert [member.name for member in members if member.isfile() and TRACES.search(member.name)] == []
    assert [member.name for member in members if member.mode & 0o6000 and member.name.startswith("opt/")] == []


CHECKS = r"""
set -e
python3 -m pip check
python3 -m pip freeze --all --exclude pip
echo user $(id -u)
for place in / /opt/steerlm /opt/packages /etc /home /usr /var; do
  if touch $place/written 2>/dev/null; then echo "WRITABLE $place"; fi
done
touch /tmp/written /scratch/written
steerlm doctor
steerlm init /scratch/my.yaml
steerlm validate /scratch/my.yaml || true
echo everything was checked
"""


@pytest.fixture(scope="module")
def output():
    """What the checks print in a pod under `restricted`, with a read-only root."""
    with running_cluster(), namespace("k3-image", **{"pod-security.kubernetes.io/enforce": "restricted"}) as where:
        load_image()
        kubectl("apply", "-f", "-", manifest=pod(where))
        ended = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
        kubectl("-n", where, "wait", "pod/check", ended, "--timeout=300s")
        return kubectl("-n", where, "logs", "check")


def pod(where):
    """The strictest pod that Pod Security knows; only /tmp and /scratch are writable."""
    container = {
        "name": "check",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", CHECKS],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in ("tmp", "scratch")],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "check", "namespace": where},
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": name, "emptyDir": {}} for name in ("tmp", "scratch")],
        },
    }


def test_works_read_only_under_restricted(output):
    assert "No broken requirements found." in output
    assert "user 1000\n" in output
    assert "WRITABLE" not in output
    assert output.rstrip().endswith("everything was checked")


def test_every_package_is_of_the_lock_file(output):
    installed = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s+]+)", output, re.MULTILINE))
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {canonical(name): pin for name, pin in (line.split("==") for line in lines if not line.startswith("#"))}
    assert len(installed) > 50
    assert installed.keys() >= {"torch", "kfp", "deepspeed"}
    strangers = {n: v for n, v in installed.items() if n != "steerlm-kubeflow" and locked.get(canonical(n)) != v}
    assert strangers == {}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()
