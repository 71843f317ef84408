"""What a report is made of."""

from __future__ import annotations

from steerlm_core.report.html import write_html
from steerlm_core.report.read import read_run
from steerlm_core.report.run_view import RunView
from steerlm_core.run import open_run


def test_the_lineage_names_every_input_with_its_digest(run):
    made = {origin.key: origin for origin in run.origins}
    assert set(made) >= {"models/prior", "models/attribute", "models/policy-0", "prompts", "iterations/001/evaluation"}
    digests = {origin.digest for origin in run.origins}
    for origin in run.origins:
        if origin.key not in ("models/prior", "prompts"):
            assert origin.inputs
            assert set(origin.inputs.values()) <= digests, origin.key
    assert "confirmation" in run.origins[-1].key


def test_heatmaps_hold_every_held_out_candidate_before_and_after(run):
    assert run.levels[0].policy == "policy 0"
    assert run.levels[-1].policy.endswith("fresh")
    for levels in run.levels:
        for name in run.config.attribute_names:
            for judge in ("measured", "predicted"):
                counts = levels.counts[name][judge]
                assert sum(map(sum, counts)) == levels.steering[name]["responses"] == 6 * 3


def test_samples_show_the_same_prompts_of_every_policy_at_contrasting_targets(run):
    assert {len(sample.answers) for sample in run.samples} == {3}
    for name in run.config.attribute_names:
        assert len({sample.target[name] for sample in run.samples}) > 1


def test_a_report_of_an_iteration_knows_nothing_of_what_came_after(root, run, tmp_path):
    early = read_run(RunView(open_run(str(root))), upto=0)
    assert [each.number for each in early.iterations] == [0]
    assert early.confirmation is None
    assert early.reason == run.iterations[0].fields["reason"]
    write_html([open_run(str(root))], tmp_path / "early.html", upto=0)
    text = (tmp_path / "early.html").read_text()
    assert "iteration 1" not in text
    assert run.iterations[0].fields["reason"] in text.replace("&#39;", "'")
