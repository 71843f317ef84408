"""Every component of the compiled pipeline in a process of its own, with what the driver hands over, to the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from steerlm_core.kubeflow.package import plain
from steerlm_core.kubeflow.platform import write_pipeline
from steerlm_core.run import open_run
from tests.pipelines.driver_rules import RUN_ID, Call, Values, walk
from tests.pipelines.launcher import Launched, launch
from tests.toy.runs import Finished, results

SHOWN = {  # the artifacts of a step, beside its metrics
    "generate": {"candidates"}, "score": {"labels", "prior_scores"}, "weigh": {"groups"}, "train": {"model"},
    "evaluate": {"evaluation"}, "decide": {"document"}, "confirm": set(), "finish": set(),
}  # fmt: skip


@pytest.mark.long
def test_the_pipeline_runs_to_its_end_on_what_the_driver_hands_over(finished: Finished, tmp_path: Path):
    write_pipeline(tmp_path / "pipeline.yaml", None, 2)
    pipeline = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    root, launched = str(tmp_path / "run"), dict[str, Launched]()

    def execute(call: Call) -> Values:
        number = sum(place.startswith(call.step) for place in launched)
        launched[f"{call.step}-{number}"] = launch(call, tmp_path / "outputs" / f"{call.step}-{number}")
        return launched[f"{call.step}-{number}"].parameters

    config = plain(open_run(str(finished(1))).config)
    walk(pipeline, {"root": root, "config": config, "max_iterations": 1, "shards": 2}, execute)
    assert launched.keys() == {
        "begin-0", "prepare-0", "gate-0", "generate-0", "generate-1", "score-0", "score-1", "weigh-0", "train-0",
        "evaluate-0", "decide-0", "gate-1", "confirm-0", "finish-0", "report-0",
    }  # fmt: skip
    assert [launched[gate].parameters["Output"] for gate in ("gate-0", "gate-1")] == ["run", "stop"]
    for name, each in launched.items():
        if (step := name.split("-")[0]) in SHOWN:
            assert each.artifacts.keys() == {"metrics", *SHOWN[step]}, name
            assert {metadata["run"] for metadata in each.artifacts.values()} == {root}
    assert launched["report-0"].artifacts.keys() == {"document", "summary"}
    assert RUN_ID not in root
    assert results(root) == results(str(finished(1)))
