"""The sections of a run's report: which figures and tables, and the words around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import yaml
from markupsafe import Markup

from steerlm_core import layout
from steerlm_core.attributes import AttributeSpec, format_label
from steerlm_core.observe.text import duration, number, printable
from steerlm_core.report import figures, plots, trust
from steerlm_core.report.data import Answer, Levels, RunData
from steerlm_core.report.page import Block, Figures, Notes, Samples, Section, Table, Text
from steerlm_core.report.svg import together
from steerlm_core.report.words import (
    ITERATION_COLUMNS,
    STEERING_COLUMNS,
    fooled,
    fresh_distance,
    iteration_rows,
    steering_rows,
)

_LONGEST_TEXT = 700
_LONGEST_CONFIG = 60_000
_DIGEST = 16


def sections(run: RunData) -> list[Section]:
    """Return the sections of a report that have something to show."""
    makers: Sequence[Callable[[RunData], Section]] = (
        _distance, _steering, trust.weights, trust.drift, trust.quality, trust.training, _samples, _time, _warnings,
        _lineage, _config,
    )  # fmt: skip
    return [section for section in (maker(run) for maker in makers) if section.blocks]


def _distance(run: RunData) -> Section:
    lead = (
        "KL divergence from the target to the policy on held-out groups, in nats; lower is better. Each iteration is "
        "measured before and after its training on the same samples. Bars are "
        f"{run.config.convergence.confidence:.0%} bootstrap intervals over groups."
    )
    if not run.iterations:
        return Section("distance", "Distance", lead)
    places = [f"iteration {each.number}" for each in run.iterations]
    accepted = [bool(each.fields.get("accepted")) for each in run.iterations]
    series = {
        label: [
            figures.Point(place, each.fields.get(key), hollow=not good)
            for place, each, good in zip(places, run.iterations, accepted, strict=True)
        ]
        for label, key in (("before training", "distance_before"), ("after training", "distance_after"))
    }
    if run.confirmation:
        nothing = figures.Point("fresh", None)
        series = {label: [*points, nothing] for label, points in series.items()}
        fresh = figures.Point("fresh", run.confirmation["distance"])
        series["best policy, fresh candidates"] = [*(figures.Point(place, None) for place in places), fresh]
    chart = figures.points_chart(series, ("tolerance", run.config.convergence.tolerance), "nats")
    caption = "" if all(accepted) else "Hollow: the iteration was not accepted."
    reasons = [(f"iteration {each.number}", str(each.fields.get("reason", ""))) for each in run.iterations]
    blocks: list[Block] = [Figures([chart], caption), Table(ITERATION_COLUMNS, iteration_rows(run.iterations))]
    if run.confirmation:
        blocks.append(fresh_distance(run.confirmation))
    return Section("distance", "Distance", lead, [*blocks, Notes(reasons)])


def _steering(run: RunData) -> Section:
    lead = (
        "What was requested against what came out, over held-out prompts. Each column is a requested level and sums "
        "to 100%; the framed diagonal is a perfect answer. Measured levels come from raters that count words, "
        "predicted ones from the attribute model that the training optimises."
    )
    shown = [levels for levels in run.levels if levels.counts]
    if not shown:
        return Section("steering", "Requested against found levels", lead)
    ends = [shown[0]] if len(shown) == 1 else [shown[0], shown[-1]]
    blocks: list[Block] = []
    if run.confirmation and run.confirmation.get("steering"):
        blocks += [Table(STEERING_COLUMNS, steering_rows(run.confirmation["steering"]))]
        if warning := fooled(run.confirmation["steering"]):
            blocks.append(Notes([("warning", warning)], alarming=True))
    for spec in run.config.attributes:
        svgs = [_heatmaps(spec, judge, ends) for judge in figures.judged(shown[0].steering)]
        if any(svgs):
            title = f"{spec.name}: {spec.high} means {spec.description}" if spec.description else spec.name
            blocks.append(Figures(svgs, title=title))
    rows = list(_correlations(run, shown))
    blocks += [Table(("Spearman correlation", *(levels.policy for levels in shown)), rows)] if len(shown) > 1 else []
    return Section("steering", "Requested against found levels", lead, blocks)


def _heatmaps(spec: AttributeSpec, judge: str, ends: Sequence[Levels]) -> Markup:
    """What one judge found of one attribute, before and after; nothing where it has no say."""
    found = [(levels.policy, levels.counts.get(spec.name, {}).get(judge)) for levels in ends]
    svgs = [figures.heatmap(counts, spec.low, f"{judge} · {policy}") for policy, counts in found if counts]
    return together(*svgs) if svgs else Markup("")


def _correlations(run: RunData, shown: Sequence[Levels]) -> Iterator[list[str]]:
    for name in run.config.attribute_names:
        for judge in figures.judged(shown[0].steering):
            found = [levels.steering.get(name, {}).get(f"spearman_{judge}") for levels in shown]
            yield [f"{name}, {judge}", *(number(value) for value in found)]


def _samples(run: RunData) -> Section:
    lead = (
        "The same held-out prompts at contrasting targets, answered by every policy: always the first candidate, not a "
        "chosen one. Levels below each text are measured where an attribute has a rater, else predicted."
    )
    rows = [
        {
            "prompt": _shown(sample.prompt),
            "target": format_label(dict(sample.target)),
            "answers": [(each.policy, _shown(each.text), _found(each)) for each in sample.answers],
        }
        for sample in run.samples
    ]
    return Section("samples", "Samples", lead, [Samples(rows)] if rows else [])


def _shown(text: str) -> str:
    """What a model wrote, with control characters spelt out, and not endless."""
    cut = text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"
    return printable(cut)


def _found(answer: Answer) -> str:
    levels = {**answer.predicted, **answer.measured}
    return " · ".join(f"{name} {level:.1f}" for name, level in levels.items())


def _time(run: RunData) -> Section:
    lead = (
        "Wall-clock time of each step over all attempts, and tokens: response tokens sampled or judged; for train, the "
        "tokens of its groups with each prompt counted once; for prepare, those that policy 0 was trained on."
    )
    timed = [each for each in run.spent if each.seconds is not None]
    if not timed:
        return Section("time", "Time and tokens", lead)
    kinds = list(dict.fromkeys(each.step for each in timed if each.iteration is not None))
    bars: dict[str, dict[str, float]] = {}
    for each in timed:
        name = each.step if each.iteration is None else f"iteration {each.iteration}"
        bars.setdefault(name, {})[each.step] = each.seconds or 0.0
    rows = [
        [
            "" if each.iteration is None else str(each.iteration),
            each.step,
            duration(each.seconds or 0.0),
            f"{each.tokens:,}" if each.tokens else "–",
            f"{each.tokens / each.seconds:,.0f}" if each.tokens and each.seconds else "–",
        ]
        for each in timed
    ]
    total = sum(each.seconds or 0.0 for each in timed)
    figure = Figures([plots.stacked(list(bars.items()), kinds)], f"{duration(total)} in all.")
    table = Table(("iteration", "step", "time", "tokens", "tokens/s"), rows, words=2)
    return Section("time", "Time and tokens", lead, [figure, table])


def _warnings(run: RunData) -> Section:
    lines = [(place, printable(message)) for place, message in run.warnings]
    return Section("warnings", "Warnings", "What the steps warned of.", [Notes(lines, alarming=True)] if lines else [])


def _lineage(run: RunData) -> Section:
    lead = (
        f"What every output was made from, by the first {_DIGEST} digits of its content's SHA-256; equal content has "
        "equal digests in any run. The manifests in the run hold all digits, and those of every file."
    )
    rows = [
        [
            each.key,
            each.step,
            "\n".join(f"{name} {digest[:_DIGEST]}" for name, digest in each.inputs.items()) or "–",
            each.digest[:_DIGEST],
            f"{each.objects} · {_bytes(each.size)}",
        ]
        for each in run.origins
    ]
    columns = ("output", "made by", "from", "digest", "objects")
    return Section("lineage", "Lineage", lead, [Table(columns, rows, words=len(columns))] if rows else [])


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"


def _config(run: RunData) -> Section:
    given = json.loads(run.config.model_dump_json())
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
    if len(text) > _LONGEST_CONFIG:
        text = text[:_LONGEST_CONFIG] + f"\n… the rest stands in {layout.RUN}"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lead = f"Digest {run.config_digest[:_DIGEST]}. Made with {versions}."
    return Section("config", "Configuration", lead, [Text(printable(text))])
