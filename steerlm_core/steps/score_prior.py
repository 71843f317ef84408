"""score_prior: log P(y|x) of every candidate, under the frozen prior, without the label."""

from __future__ import annotations

import pyarrow as pa

from steerlm_core import layout
from steerlm_core.models.scoring import response_log_probs
from steerlm_core.progress import Tell
from steerlm_core.schemas import PRIOR_SCORES
from steerlm_core.steps.by_part import Numbers, run_by_part
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.output import Output
from steerlm_core.steps.rows import token_groups
from steerlm_core.store.manifest import Manifest, Part


def run(context: StepContext) -> Manifest | None:
    """Score the stage's candidates; returns the manifest of the prior scores, None while other shards are at it."""
    stage, config = context.here, context.config
    candidates = context.manifest(layout.stage_output(stage.prefix, "candidates"))
    prior = context.manifest(layout.PRIOR)
    output = Output(
        context,
        "score_prior",
        layout.stage_output(stage.prefix, "prior_scores"),
        {"candidates": candidates.content_digest, "prior": prior.content_digest},
        {"dtype": config.models.dtype, "layout": config.train.layout},
    )
    if done := output.existing():
        return done
    model = context.models.causal_lm(context.store.local_folder(prior), config.models.dtype)

    def work(part: Part, table: pa.Table, tell: Tell) -> tuple[pa.Table, Numbers]:
        groups = token_groups(table, "prior_prompt_ids")
        scores = response_log_probs(
            model,
            groups,
            token_budget=config.train.token_budget,
            layout=config.train.layout,
            progress=tell,
        )
        columns = {
            "group_id": table["group_id"],
            "index": table["index"],
            "log_p_prior": [log_p for group in scores for log_p in group.sums[:, 0].tolist()],
        }
        return pa.table(columns, schema=PRIOR_SCORES), {}

    return run_by_part(context, output, candidates.parts, "texts", work)
