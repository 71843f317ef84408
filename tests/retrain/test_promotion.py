"""What is in use under a base root, and how its documents spell roots."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlm_core import layout
from steerlm_core.errors import SteerLMError
from steerlm_core.retrain import promotion
from steerlm_core.store import open_store
from tests.in_process import Steerlm
from tests.retrain.base import config_file, runs_in


def test_documents_name_roots_that_lead_there_from_every_folder(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steerlm: Steerlm
) -> None:
    store = open_store(str(retrained))
    finished, entry = store.document(layout.FINISHED), promotion.promoted(store)
    assert entry is not None
    run = Path(entry["root"])
    assert run.parent == retrained / "runs"
    assert finished["root"] == entry["root"]
    assert (Path(entry["model"]) / "config.json").is_file()
    assert open_store(str(run)).document("run.json")["origin"]["base_root"] == str(retrained)
    other = str(tmp_path / "other")
    monkeypatch.chdir(run)
    assert steerlm("promote", "../" + run.name + "/", "--base-root", other).code == 0
    there = promotion.promoted(open_store(other))
    assert there is not None
    assert (there["root"], there["model"]) == (entry["root"], entry["model"])


def test_a_model_promoted_meanwhile_stays(world, bucket, tmp_path, said):
    said("retrain", config_file(world, tmp_path), bucket)
    base = open_store(bucket)
    (root,) = runs_in(bucket)
    base.delete([layout.PROMOTED])
    with pytest.raises(SteerLMError, match="another model has come into use since this run started"):
        promotion.promote(base, open_store(root), "", instead_of="0" * 64)
