"""The sections that say whether to trust a run: weights, drift, attribute model, training."""

from __future__ import annotations

from collections.abc import Sequence

from steerlm_core.observe.text import number
from steerlm_core.report import plots
from steerlm_core.report.data import Iteration, RunData
from steerlm_core.report.figures import SERIES
from steerlm_core.report.page import Block, Figures, Section, Table

_WEIGHTS = (
    ("ess", "Effective sample size", "1 / Σ ws²: how many of the {n} candidates of a group carry its weight."),
    ("max_ws", "Largest weight", "The greatest ws of a group; near 1, one candidate decides alone."),
)
_SPREADS = (
    ("spread_log_p_attr", "log P(a|x,y)"),
    ("spread_log_p_prior", "log P(y|x)"),
    ("spread_log_q", "log Q'(y|a,x)"),
)


def weights(run: RunData) -> Section:
    """Return the section of that name."""
    candidates = run.config.generate.candidates
    lead = (
        "How the importance weights ws spread over the groups of an iteration: a line from the 5% to the 95% quantile, "
        "a bar from 25% to 75%, the median at the right. Where few candidates carry the weight, distances say little."
    )
    past = [each for each in run.iterations if each.weights]
    if not past:
        return Section("weights", "Weights", lead)
    blocks: list[Block] = []
    for key, title, explained in _WEIGHTS:
        rows = [(f"iteration {each.number}", each.weights[key]) for each in past]
        ess = key == "ess"
        mark = run.config.convergence.min_ess if ess else None
        svg = plots.boxes(rows, float(ess), float(candidates) if ess else 1.0, title, mark)
        more = f" Under the dashed line ({mark:g}) an iteration is uninformative." if mark else ""
        blocks.append(Figures([svg], explained.format(n=candidates) + more))
    for key, title in _SPREADS:
        rows = [(f"iteration {each.number}", each.weights[key]) for each in past]
        most = max(quantiles[5] for each in past for name, _ in _SPREADS for quantiles in [each.weights[name]])
        blocks.append(Figures([plots.boxes(rows, 0.0, most, f"spread of {title}, nats")]))
    blocks.append(
        "The spread is the standard deviation of a term over the candidates of a group. log P(y|x) and log Q'(y|a,x) "
        "enter the weights with opposite signs and cancel in part; what is left of them, and log P(a|x,y), decides."
    )
    return Section("weights", "Weights", lead, blocks)


def drift(run: RunData) -> Section:
    """Return the section of that name."""
    limits = run.config.generate
    lead = (
        "The sampler's own log-probabilities against those scored again by the code that trains. A sampler that is not "
        f"the model makes every weight wrong: generate fails above {limits.max_drifted_share:.2%} of responses that "
        f"differ by more than log 3, or a mean exp|Δ| per token above {limits.max_token_drift:g}."
    )
    past = [each for each in run.iterations if each.drift]
    if not past:
        return Section("drift", "Sampler drift", lead)
    series = {f"iteration {each.number}": each.drift["counts"] for each in past[-SERIES:]}
    svg = plots.histogram(past[0].drift["edges"], series, ("log 3", 1.0986))
    rows = [
        [
            str(each.number),
            f"{each.fields.get('drift_token', float('nan')):.7f}",
            f"{each.fields.get('drift_far_share', float('nan')):.3%}",
        ]
        for each in past
    ]
    table = Table(("iteration", "mean exp|Δ| per token", "responses off by more than log 3"), rows)
    return Section(
        "drift", "Sampler drift", lead, [Figures([svg], "Share of the responses by size of the drift."), table]
    )


def quality(run: RunData) -> Section:
    """Return the section of that name."""
    lead = "How well the attribute model predicts levels of annotated texts that it was not trained on."
    rows = [
        [name, *(number(found.get(key)) for key in ("r2", "spearman", "mae", "sigma")), f"{found.get('texts', 0):.0f}"]
        for name, found in run.quality.items()
    ]
    columns = ("attribute", "R²", "Spearman", "mean error, levels", "σ of the error", "texts")
    return Section("attribute-model", "Attribute model", lead, [Table(columns, rows)] if rows else [])


def training(run: RunData) -> Section:
    """Return the section of that name."""
    lead = (
        "Numbers of each optimizer step, iterations one behind the other: faint as measured, strong as running mean. "
        "Every iteration trains on fresh samples, so its curves begin anew."
    )
    past = [each for each in run.iterations if each.curve.get("loss")]
    wanted = (("distance", "distance of the batch, nats"), ("ess", "effective sample size"),
              ("grad_norm", "gradient norm"), ("learning_rate", "learning rate"))  # fmt: skip
    blocks: list[Block] = []
    if past:
        blocks.append(Figures([plots.curves(_series(past, key), title) for key, title in wanted]))
    if run.policy_0_losses:
        svg = plots.curves(
            [("policy 0", 1, run.policy_0_losses)], "validation loss of policy 0, nats a token", "pass", first=0
        )
        blocks.append(
            Figures([svg], "SteerLM v1 bootstrap, before the first pass and after each; the best pass is kept.")
        )
    return Section("training", "Training", lead, blocks)


def _series(past: Sequence[Iteration], key: str) -> list[tuple[str, int, Sequence[float]]]:
    return [(f"iteration {each.number}", int(each.curve["stride"]), each.curve[key]) for each in past]
