"""`steerlm doctor --kubernetes` on a real cluster: what it finds, and that the commands it gives repair it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from steerlm_core.kube.api.client import connect
from steerlm_core.kube.job.permissions import NEEDED
from steerlm_core.kube.preflight.check import State
from steerlm_core.kube.preflight.controllers import Operator, find_operator
from steerlm_core.kube.preflight.dry_run import dry_run_pod, sample_job, sample_pods
from steerlm_core.platform import load_platform
from tests.cluster.kit import HOME, KUBECONFIG, ROOT, kubectl
from tests.cluster.place import SECRET, Place
from tests.services.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from tests.waiting import until

KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


class Found(NamedTuple):
    """What doctor said: exit code, state of each row, commands, and all words with single spaces."""

    code: int
    states: dict[str, str]
    repairs: list[str]
    text: str


@pytest.fixture
def here(nodes: None, s3: S3Server, tmp_path: Path) -> Iterator[Place]:
    """A namespace of its own, whose launcher may do what a launcher must."""
    place = Place(f"doctor-{uuid.uuid4().hex[:6]}", tmp_path, s3.endpoint, KEYS)
    yield place
    kubectl("delete", "namespace", place.name, "--wait=false")


def doctor(kubeconfig: Path, platform: Path, *words: str, environment: Mapping[str, str] = {}) -> Found:
    run = "import sys; from steerlm_core.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", run, "doctor", "--kubernetes", "--platform", str(platform), *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": str(kubeconfig), **environment},
    )
    assert "Traceback" not in done.stderr, done.stderr
    rows = re.findall(rf"^ (\S.*?) {{2,}}({'|'.join(map(re.escape, State))}) {{2,}}", done.stdout, re.MULTILINE)
    repairs = re.findall(r"^  (\S.*)$", done.stdout, re.MULTILINE)
    return Found(done.returncode, dict(rows), repairs, " ".join((done.stdout + done.stderr).split()))


def repair(found: Found) -> None:
    """Do what doctor said, as administrator; keys are put where it leaves them open."""
    environment = {**os.environ, "KUBECONFIG": str(KUBECONFIG), "PATH": f"{HOME / 'bin'}:{os.environ['PATH']}"}
    for command in found.repairs:
        if command.startswith("kubectl"):
            for key, value in KEYS.items():
                command = command.replace(f"{key}=…", f"{key}={value}")
            subprocess.run(["bash", "-c", command], env=environment, check=True)


def test_a_launcher_that_may_do_its_work_passes_and_what_it_may_not_see_is_said(here, s3):
    found = doctor(
        here.kubeconfig(), here.platform("fine"), "--root", f"s3://{BUCKET}/doctor", environment=s3.environment
    )
    assert found.code == 0, found.text
    for row in ("API server", "PyTorchJob", "pytorchjobs", "pods", "pods/log", "dry run of the job", "object store"):
        assert found.states[row] == "ok", found.text
    for row in (f"secret {SECRET}", "dry run of the pods", "room in the quota"):
        assert found.states[row] == "?", found.text
    assert SECRET_KEY not in found.text


def test_missing_permissions_are_granted_by_the_commands_given(here):
    here.allow(())
    before = doctor(here.kubeconfig(), here.platform("fine"))
    assert (before.code, before.states["pytorchjobs"], before.states["pods"]) == (1, "FAILED", "FAILED"), before.text
    assert (before.states["events"], before.states["pods/log"]) == ("!", "!")
    assert "may not create, get, list, watch, patch, delete" in before.text
    repair(before)
    after = doctor(here.kubeconfig(), here.platform("fine"))
    assert after.code == 0, after.text
    assert {after.states[row] for row in ("pytorchjobs", "pods", "pods/log", "events")} == {"ok"}


def test_one_missing_verb_is_named(here):
    here.allow([each for each in NEEDED if each.verb != "delete"])
    found = doctor(here.kubeconfig(), here.platform("fine"))
    assert (found.code, found.states["pytorchjobs"], found.states["pods"]) == (1, "FAILED", "ok")
    assert "this account may not delete " in found.text


def test_what_the_platform_file_names_is_made_by_the_commands_given(here):
    kubectl("-n", here.name, "delete", "secret", SECRET)
    kubectl("-n", here.name, "delete", "serviceaccount", "steerlm-train")
    platform = here.platform("here", namespace=here.name)
    before = doctor(KUBECONFIG, platform)
    assert before.code == 1
    failed = {row for row, state in before.states.items() if state == "FAILED"}
    assert failed == {
        f"secret {SECRET}", "serviceaccount steerlm-train", "dry run of the master pod", "dry run of the worker pod"
    }, before.text  # fmt: skip
    repair(before)
    after = doctor(KUBECONFIG, platform)
    assert after.code == 0, after.text
    assert set(after.states.values()) == {"ok", "?"}  # no --root was given
    assert SECRET_KEY not in after.text


def test_a_secret_without_a_key_is_not_enough(here):
    kubectl("-n", here.name, "delete", "secret", SECRET)
    kubectl("-n", here.name, "create", "secret", "generic", SECRET, f"--from-literal=AWS_ACCESS_KEY_ID={ACCESS_KEY}")
    before = doctor(KUBECONFIG, here.platform("here", namespace=here.name))
    assert (before.code, before.states[f"secret {SECRET}"]) == (1, "FAILED")
    assert "has no AWS_SECRET_ACCESS_KEY" in before.text
    repair(before)
    assert doctor(KUBECONFIG, here.platform("here", namespace=here.name)).code == 0


def test_a_namespace_that_is_not_there_is_the_last_row(here):
    found = doctor(KUBECONFIG, here.platform("nowhere", namespace="nowhere-at-all"))
    assert found.code == 1
    assert list(found.states)[-1] == "namespace"
    assert "kubectl create namespace nowhere-at-all" in found.repairs


def test_a_patch_that_pod_security_refuses_fails_before_any_run(here):
    patch = {"pod": {"spec": {"securityContext": {"runAsNonRoot": None, "runAsUser": 0}}}}
    found = doctor(KUBECONFIG, here.platform("root", namespace=here.name, patch=patch))
    assert (found.code, found.states["dry run of the job"]) == (1, "ok")
    assert found.states["dry run of the master pod"] == found.states["dry run of the worker pod"] == "FAILED"
    assert 'violates PodSecurity "restricted' in found.text


# What operator 1.9 adds to workers where it is told nothing, as far as admission looks at it.
STOCK = """
- name: init-pytorch
  image: {{.InitContainerImage}}
  resources:
    limits: {cpu: 100m, memory: 20Mi}
    requests: {cpu: 50m, memory: 10Mi}
  command: [sh, -c, "nslookup {{.MasterAddr}}"]
"""


def test_the_stock_init_container_is_refused_where_the_clusters_own_is_admitted(here, monkeypatch):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(KUBECONFIG))
    api = connect(here.name)
    job = sample_job(load_platform(here.platform("here")), "image", here.name)
    own, stock, unseen = find_operator(api), Operator(init_template=STOCK), Operator()
    assert own is not None
    checks = {}
    for operator in (own, stock, unseen):
        worker = dict(sample_pods(job, operator))["Worker"]
        checks[operator] = dry_run_pod(api, "Worker", worker, operator)
    assert checks[own].state is State.OK
    assert checks[stock].state is State.FAILED
    assert "init-pytorch" in checks[stock].found
    assert "training-operator-config" in checks[stock].repair
    assert checks[unseen].state is State.UNKNOWN


def test_a_quota_is_compared_with_what_all_pods_need(here):
    def quota(**hard: str) -> Found:
        metadata = {"name": "team", "namespace": here.name}
        here.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}})
        fields = ("-o", "jsonpath={.status.hard}")
        until("the quota counts", lambda: "1" in kubectl("-n", here.name, "get", "resourcequota", "team", *fields), 20)
        found = doctor(KUBECONFIG, here.platform("here", namespace=here.name))
        kubectl("-n", here.name, "delete", "resourcequota", "team")
        return found

    assert quota(**{"requests.memory": "10Gi"}).states["room in the quota"] == "ok"
    small = quota(**{"requests.memory": "1500Mi"})  # two pods of 1Gi
    assert (small.code, small.states["room in the quota"]) == (1, "FAILED")
    assert "requests.memory 2147483648 never fits" in small.text
    assert f"kubectl -n {here.name} edit resourcequota team" in " ".join(small.repairs)
    cpus = quota(**{"limits.cpu": "10"})  # no limit is set, and such a quota wants one
    assert (cpus.code, cpus.states["dry run of the master pod"]) == (1, "FAILED")


def test_no_api_server_and_no_object_store(here, s3, tmp_path):
    nobody = tmp_path / "nobody"
    nobody.write_text(KUBECONFIG.read_text().replace(":6443", ":9"))
    found = doctor(nobody, here.platform("fine"))
    assert (found.code, found.states) == (1, {"API server": "FAILED"})
    wrong = {**s3.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    found = doctor(here.kubeconfig(), here.platform("fine"), "--root", f"s3://{BUCKET}/doctor", environment=wrong)
    assert (found.code, found.states["object store"]) == (1, "FAILED")
    assert "AWS_SECRET_ACCESS_KEY" in found.text
