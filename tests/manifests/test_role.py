"""Our Role beside the platform's own: together they suffice for every call of our steps, no rule less."""

import json

import pytest
import yaml
from kubernetes import client, config

from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ForbiddenError, KubeApi
from steerlm_core.kube.job.permissions import NEEDED, OF_WORKFLOWS, WANTED, missing_permissions
from tests.cluster.kit import KUBECONFIG, kubectl
from tests.manifests.applying import namespace
from tests.manifests.sources import ROOT, documents, one

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
ACCOUNT = one("RoleBinding", "steerlm-steps")["subjects"][0]["name"]
RULES = one("Role", "steerlm-steps")["rules"]
STOCK = documents(ROOT / "tests/manifests/stock_roles.yaml")[0]
EVERYTHING = (*NEEDED, *WANTED, *OF_WORKFLOWS)


@pytest.fixture(scope="module")
def place(cluster):
    """A namespace with the accounts that steps run as, and what each platform gives them."""
    with namespace("k3-role") as name:
        for account, rules in STOCK.items():
            kubectl("-n", name, "create", "serviceaccount", account)
            bind(name, account, "stock", rules)
        yield name


def api_of(account, where):
    """The API as steps reach it: with the token of their account."""
    token = kubectl("-n", where, "create", "token", account, "--duration", "1h").strip()
    admin = json.loads(KUBECONFIG.read_text())
    context = {"cluster": "kit", "user": account, "namespace": where}
    own = {"users": [{"name": account, "user": {"token": token}}], "contexts": [{"name": "kit", "context": context}]}
    settings = client.Configuration()
    config.load_kube_config_from_dict(admin | own, client_configuration=settings)
    return KubeApi(client.ApiClient(settings), where)


def bind(where, account, name, rules):
    """Give an account a Role with these rules."""
    name = f"{account}-{name}"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": where}
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


def test_stock_role_and_ours_suffice(place):
    bind(place, ACCOUNT, "ours", RULES)
    api = api_of(ACCOUNT, place)
    assert missing_permissions(api, EVERYTHING) == []
    calls(api)


def test_in_a_profile_the_platforms_own_rights_suffice(place):
    api = api_of("default-editor", place)
    assert missing_permissions(api, EVERYTHING) == []
    calls(api)


@pytest.mark.parametrize("left_out", range(len(RULES)), ids=lambda n: yaml.safe_dump(RULES[n], default_flow_style=True))
def test_without_a_rule_of_ours_a_call_is_refused(place, left_out):
    bind(place, ACCOUNT, "ours", [rule for n, rule in enumerate(RULES) if n != left_out])
    api = api_of(ACCOUNT, place)
    assert missing_permissions(api, EVERYTHING)
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
