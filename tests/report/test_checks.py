"""What a report warns of."""

from __future__ import annotations

from dataclasses import replace

from steerlm_core.report.checks import checks
from steerlm_core.report.data import RunData


def test_checks_call_out_what_cannot_be_trusted(run):
    def verdicts(run: RunData) -> dict[str, str]:
        return {check.name: check.verdict for check in checks(run)}

    def with_last(**fields: float) -> RunData:
        *before, last = run.iterations
        return replace(run, iterations=[*before, replace(last, fields={**last.fields, **fields})])

    sound = {
        "ess_median": 2.5,
        "drift_far_share": 0.0,
        "drift_token": 1.0,
        "retained_mass": 1.0,
        "truncation_after": 0.0,
    }
    assert set(list(verdicts(with_last(**sound)).values())[:5]) == {"good"}
    for name, value, check in (
        ("ess_median", 0.9, "Effective samples"),
        ("drift_far_share", 0.5, "Sampler drift"),
        ("drift_token", 1.2, "Sampler drift"),
        ("retained_mass", 0.2, "Retained mass"),
        ("groups_left_out", 5, "Held-out groups"),
        ("truncation_after", 1.0, "Truncated"),
    ):
        changed = with_last(**{**sound, "truncation_before": 0.0, name: value})
        assert verdicts(changed)[check] == "look"
    first, last = run.levels[0], run.levels[-1]
    worse = replace(last, steering={"mood": {"spearman_measured": 0.5}})
    better = replace(first, steering={"mood": {"spearman_measured": 0.9}})
    assert verdicts(replace(run, levels=[better, worse]))["Steering"] == "look"
    assert verdicts(replace(run, levels=[worse, better]))["Steering"] == "good"
