"""label: attributes of every candidate, and the log-likelihood of its group's target.

The attribute model reads decoded text, tokenised for itself. The measured raters read it too:
where both disagree, somebody is being fooled, and evaluate and confirm show it.
"""

from __future__ import annotations

import pyarrow as pa
import torch

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.likelihood import log_likelihood
from steerlm_core.models.attribute_model import AttributeModel
from steerlm_core.progress import Tell
from steerlm_core.raters import measure
from steerlm_core.schemas import LABELS
from steerlm_core.steps.by_part import Numbers, run_by_part
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.store.manifest import Manifest, Part


def run(context: StepContext) -> Manifest | None:
    """Label the candidates of the stage; returns the manifest of the labels, None while other shards are at it."""
    stage, config = context.here, context.config
    candidates = context.manifest(layout.stage_output(stage.prefix, "candidates"))
    attribute = context.manifest(layout.ATTRIBUTE_MODEL)
    output = Output(
        context,
        "label",
        layout.stage_output(stage.prefix, "labels"),
        {"candidates": candidates.content_digest, "attribute": attribute.content_digest},
        {
            "label": config.label,
            "raters": config.raters,
            "attributes": [spec.model_dump() for spec in config.attributes],
        },
    )
    if done := output.existing():
        return done
    model = context.models.attribute_model(context.store.local_folder(attribute))

    def work(part: Part, table: pa.Table, tell: Tell) -> tuple[pa.Table, Numbers]:
        return _label(table, model, config, tell), {}

    return run_by_part(context, output, candidates.parts, "texts", work)


def _label(table: pa.Table, model: AttributeModel, config: RunConfig, tell: Tell) -> pa.Table:
    prompts, texts = table["prompt"].to_pylist(), table["text"].to_pylist()
    predicted = model.predict(prompts, texts, config.label.batch, tell)  # [B, A]
    log_p_attr = target_log_likelihood(predicted, [dict(t) for t in table["target"].to_pylist()], model, config)
    columns = {
        "group_id": table["group_id"],
        "index": table["index"],
        "predicted": predicted.tolist(),
        "measured": [measure(text, config.raters, config.attribute_names) for text in texts],
        "log_p_attr": log_p_attr.tolist(),
    }
    return pa.table(columns, schema=LABELS)


def target_log_likelihood(
    predicted: torch.Tensor, targets: list[dict[str, int]], model: AttributeModel, config: RunConfig
) -> torch.Tensor:
    """Return log P(a|x,y) `[B]` of each row's target, given predictions in levels `[B, A]`."""
    names = config.attribute_names
    wanted = torch.tensor([[float(t.get(name, float("nan"))) for name in names] for t in targets])  # [B, A]
    sigma = [config.label.sigma.get(name, model.quality[name].sigma) for name in names]
    return log_likelihood(
        predicted,
        wanted,
        [spec.low for spec in config.attributes],
        [spec.high for spec in config.attributes],
        kind=config.label.likelihood,
        concentration=config.label.beta_concentration,
        sigma=sigma,
    )
