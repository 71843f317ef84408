"""Our Role beside the platform's own: together they suffice for every call of our steps, no rule less."""

import json

import pytest
import yaml
from kubernetes import client, config

from steerlm_core.kube import paths
from steerlm_core.kube.api import ForbiddenError, KubeApi
from steerlm_core.kube.permissions import NEEDED, OF_WORKFLOWS, WANTED, missing
from tests.cluster.kit import KUBECONFIG, kubectl
from tests.manifests.applying import namespace
from tests.manifests.sources import ROOT, documents, one

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
ACCOUNT = one("RoleBinding", "steerlm-steps")["subjects"][0]["name"]
RULES = one("Role", "steerlm-steps")["rules"]
STOCK = documents(ROOT / "tests/manifests/stock_role.yaml")[0]
EVERYTHING = (*NEEDED, *WANTED, *OF_WORKFLOWS)


@pytest.fixture(scope="module")
def place(cluster):
    """A namespace with the step account, and what the platform gives it."""
    with namespace("k3-role") as name:
        kubectl("-n", name, "create", "serviceaccount", ACCOUNT)
        bind(name, "stock", STOCK)
        yield name


@pytest.fixture
def api(place):
    """The API as our steps reach it: with the token of the step account."""
    token = kubectl("-n", place, "create", "token", ACCOUNT, "--duration", "1h").strip()
    admin = json.loads(KUBECONFIG.read_text())
    context = {"cluster": "kit", "user": ACCOUNT, "namespace": place}
    own = {"users": [{"name": ACCOUNT, "user": {"token": token}}], "contexts": [{"name": "kit", "context": context}]}
    settings = client.Configuration()
    config.load_kube_config_from_dict(admin | own, client_configuration=settings)
    return KubeApi(client.ApiClient(settings), place)


def bind(where, name, rules):
    """Give the step account a Role with these rules."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": where}
    for kind, body in (("Role", {"rules": rules}), ("RoleBinding", {"roleRef": role, "subjects": [subject]})):
        metadata = {"name": name, "namespace": where}
        kubectl("apply", "-f", "-", manifest={
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, **body
        })  # fmt: skip


def calls(api):
    """Make every kind of call that our steps make; nothing that they name exists."""
    where = api.namespace
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "none", "namespace": where}}
    container = {"name": "pytorch", "image": "localhost/pause:1"}
    spec = {"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": {"spec": {"containers": [container]}}}}}
    api.request("POST", paths.jobs(where), {**job, "spec": spec}, {"dryRun": "All"})
    assert api.get(paths.job(where, "none")) is None
    assert api.get(f"{paths.pods(where)}/none") is None
    assert api.get(f"{paths.pods(where)}/none/log") is None
    assert api.get(f"{paths.workflows(where)}/none") is None
    for path in (paths.jobs(where), paths.pods(where), paths.events(where)):
        assert api.request("GET", path)["items"] == []
    for path in (paths.jobs(where), paths.pods(where)):
        list(api.lines(path, {"watch": True, "timeoutSeconds": 1}, 10.0))


def test_stock_role_and_ours_suffice(place, api):
    bind(place, "ours", RULES)
    assert missing(api, EVERYTHING) == []
    calls(api)


@pytest.mark.parametrize("left_out", range(len(RULES)), ids=lambda n: yaml.safe_dump(RULES[n], default_flow_style=True))
def test_without_a_rule_of_ours_a_call_is_refused(place, api, left_out):
    bind(place, "ours", [rule for n, rule in enumerate(RULES) if n != left_out])
    assert missing(api, EVERYTHING)
    with pytest.raises(ForbiddenError):
        calls(api)


def test_no_rule_of_ours_allows_more_than_we_use():
    allowed = {
        (verb, resource, group)
        for rule in RULES
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
    }
    assert allowed <= {(p.verb, p.resource, p.group) for p in EVERYTHING}
