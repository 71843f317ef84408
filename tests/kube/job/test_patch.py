"""Strategic merge patches: the cases of the Kubernetes documentation."""

import pytest

from steerlm_core.errors import ConfigError
from steerlm_core.kube.job.patch import apply_patch

POD = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "nodeSelector": {"zone": "x"},
        "tolerations": [{"key": "old"}],
        "containers": [{"name": "pytorch", "image": "i", "args": ["x"], "env": [{"name": "A", "value": "1"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "scratch", "emptyDir": {}}],
    },
}


def patched(**spec):
    return apply_patch(POD, {"spec": spec}, "patch")["spec"]


def test_mappings_are_merged_and_null_removes():
    assert apply_patch(POD, {"metadata": {"labels": {"b": "2"}}}, "patch")["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert "nodeSelector" not in patched(nodeSelector=None)
    assert patched(securityContext={"runAsUser": 7, "runAsGroup": None})["securityContext"] == {"runAsUser": 7}


def test_lists_of_named_things_are_merged_by_name():
    found = patched(
        containers=[
            {"name": "pytorch", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
            {"name": "sidecar", "image": "s"},
        ]
    )["containers"]
    assert found == [
        {
            "name": "pytorch",
            "image": "i",
            "args": ["x"],
            "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
        },
        {"name": "sidecar", "image": "s"},
    ]


def test_other_lists_are_replaced():
    assert patched(tolerations=[{"key": "new"}])["tolerations"] == [{"key": "new"}]
    assert patched(containers=[{"name": "pytorch", "args": ["y"]}])["containers"][0]["args"] == ["y"]


def test_directives():
    assert [v["name"] for v in patched(volumes=[{"name": "tmp", "$patch": "delete"}])["volumes"]] == ["scratch"]
    replaced = patched(volumes=[{"name": "tmp", "$patch": "replace", "hostPath": {"path": "/x"}}])["volumes"][0]
    assert replaced == {"name": "tmp", "hostPath": {"path": "/x"}}


def test_directives_on_mappings():
    assert "nodeSelector" not in patched(nodeSelector={"$patch": "delete"})
    assert patched(nodeSelector={"$patch": "replace", "pool": "a"})["nodeSelector"] == {"pool": "a"}
    assert "affinity" not in patched(affinity={"$patch": "delete"})
    hosted = patched(volumes=[{"name": "tmp", "emptyDir": {"$patch": "delete"}, "hostPath": {"path": "/x"}}])
    assert hosted["volumes"][0] == {"name": "tmp", "hostPath": {"path": "/x"}}


def test_what_is_new_is_taken_without_its_directives_and_nulls():
    new = {
        "name": "new",
        "env": [{"name": "A", "$patch": "delete"}],
        "securityContext": {"$patch": "replace", "a": None},
    }
    assert patched(containers=[new])["containers"][1] == {"name": "new", "env": [], "securityContext": {}}


def test_nothing_that_was_given_is_changed():
    patch = {"spec": {"containers": [{"name": "pytorch", "env": [{"name": "C"}]}], "volumes": [{"name": "new"}]}}
    before = repr((POD, patch))
    apply_patch(POD, patch, "patch")
    assert repr((POD, patch)) == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"containers": [{"image": "x"}]}, ["patch.spec.containers", "`name`"]),
        ({"containers": {"pytorch": {}}}, ["patch.spec.containers", "a mapping", "where the manifest has a list"]),
        ({"volumes": [{"name": "tmp", "emptyDir": "1Gi"}]}, ["patch.spec.volumes[tmp].emptyDir", "a value '1Gi'"]),
        ({"volumes": [{"name": "tmp", "$retainKeys": ["name"]}]}, ["patch.spec.volumes[tmp]: `$retainKeys: ['name']`"]),
        ({"nodeSelector": {"$patch": "merge"}}, ["patch.spec.nodeSelector: `$patch: merge`", "`$patch: delete`"]),
        ({"$setElementOrder/volumes": []}, ["patch.spec: `$setElementOrder/volumes: []`", "`$patch: replace`"]),
        ({"tolerations": [{"key": "old", "$patch": "delete"}]}, ["patch.spec.tolerations[0]: `$patch: delete`"]),
        ({"$patch": "merge"}, ["patch.spec: `$patch: merge`"]),
    ],
)
def test_a_patch_that_does_not_fit_is_named_with_its_place(spec, words):
    with pytest.raises(ConfigError) as error:
        patched(**spec)
    for word in words:
        assert word in str(error.value)


def test_the_whole_manifest_is_not_deleted():
    with pytest.raises(ConfigError, match="would leave nothing"):
        apply_patch(POD, {"$patch": "delete"}, "patch")
