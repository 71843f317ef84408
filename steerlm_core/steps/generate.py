"""generate: candidates for every prompt, with their logQ.

    prompts ─► sample ─► re-score with the training forward ─► candidates

`log_q` is re-scored, the sampler's own log-probs are kept beside it, and the *sampler drift* gate
compares the two: a sampler that is not the model it claims to be makes every weight wrong. A
held-out group draws further candidates, up to 2N, until N are complete (method.md, fact 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steerlm_core import layout
from steerlm_core.config import RunConfig
from steerlm_core.models.distribution import Sampling
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.loading import end_token_id
from steerlm_core.models.scoring import response_log_probs
from steerlm_core.progress import Tell
from steerlm_core.sampling.sampler import Draw, Sample, noise_key, sample
from steerlm_core.schemas import CANDIDATES
from steerlm_core.steps.by_part import Numbers, run_by_part
from steerlm_core.steps.context import StepContext
from steerlm_core.steps.drift import Drift, histogram, judge
from steerlm_core.steps.output import Output
from steerlm_core.store.manifest import Manifest, Part

_DRAWS_AT_MOST = 2  # times N, for a held-out group


@dataclass
class _Group:
    """A prompt of the part in work, and its candidates so far."""

    row: dict[str, Any]
    samples: list[Sample]

    def missing(self, wanted: int) -> int:
        """How many further draws a held-out group makes now."""
        complete = sum(sample.complete for sample in self.samples)
        return min(wanted - complete, _DRAWS_AT_MOST * wanted - len(self.samples))


def run(context: StepContext) -> Manifest | None:
    """Sample and re-score the candidates of the stage; returns their manifest, None while other shards are at it.

    Raises:
        CaptureError: The sampler's log-probs are not those of the model.
    """
    stage, config = context.here, context.config
    prompts, policy = context.manifest(layout.PROMPTS), context.manifest(stage.policy)
    output = Output(
        context,
        "generate",
        layout.stage_output(stage.prefix, "candidates"),
        {"prompts": prompts.content_digest, "policy": policy.content_digest},
        {"generate": config.generate, "seed": config.seed, "draw": stage.draw, "splits": stage.splits,
         "dtype": config.models.dtype},
    )  # fmt: skip
    if done := output.existing():
        return done
    folder = context.store.local_folder(policy)
    model, tokenizer = context.models.causal_lm(folder, config.models.dtype), context.models.tokenizer(folder)

    def work(part: Part, table: pa.Table, tell: Tell) -> tuple[pa.Table, Numbers]:
        drift = Drift()
        groups = _sample_part(context, model, tokenizer, table, part.split, tell)
        rows = list(_rows(model, tokenizer, groups, config, drift))
        truncated = sum(row["finish_reason"] == "length" for row in rows)
        numbers = {"candidates": len(rows), "truncated": truncated, "split": part.split, **drift.sums()}
        return pa.Table.from_pylist(rows, CANDIDATES), numbers

    def summarise(parts: list[Numbers]) -> Numbers:
        counts = {name: sum(part[name] for part in parts) for name in ("candidates", "truncated")}
        numbers = {**counts, **judge(parts, config.generate)}
        context.events.metric(**numbers)
        tokens = {split: sum(part["tokens"] for part in parts if part["split"] == split) for split in stage.splits}
        return {**numbers, "response_tokens": tokens, "drift_histogram": histogram(parts)}

    parts = [part for part in prompts.parts if part.split in stage.splits]
    return run_by_part(context, output, parts, "groups", work, summarise)


def _sample_part(
    context: StepContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    table: pa.Table,
    split: str,
    tell: Tell,
) -> list[_Group]:
    """Sample N candidates a group; held-out groups go on until N are complete."""
    settings = context.config.generate
    groups = [_Group(row, []) for row in table.to_pylist()]
    wanted = {group.row["group_id"]: settings.candidates for group in groups}
    end = end_token_id(tokenizer, "models.policy")
    while any(wanted.values()):
        draws = [_draw(context, group, i) for group in groups for i in range(wanted[group.row["group_id"]])]
        made = sum(len(group.samples) for group in groups)
        samples = iter(sample(model, draws, settings, end, _beyond(made, tell)))
        for group in groups:
            group.samples += [next(samples) for _ in range(wanted[group.row["group_id"]])]
        again = split == "held_out" and settings.truncated == "drop"
        wanted = {g.row["group_id"]: g.missing(settings.candidates) if again else 0 for g in groups}
    return groups


def _beyond(made: int, tell: Tell) -> Tell:
    """Count further draws on top of those made."""
    return lambda done, of: tell(made + done, made + of)


def _draw(context: StepContext, group: _Group, offset: int) -> Draw:
    index = len(group.samples) + offset
    key = noise_key(context.config.seed, context.here.draw, group.row["group_id"], index)
    return Draw(tuple(group.row["policy_prompt_ids"]), key)


def _rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: list[_Group],
    config: RunConfig,
    drift: Drift,
) -> Iterator[dict[str, Any]]:
    """Re-score the part's candidates and yield them as rows of CANDIDATES."""
    settings, train = config.generate, config.train
    tokens = [
        TokenGroup(tuple(group.row["policy_prompt_ids"]), tuple(tuple(s.ids) for s in group.samples))
        for group in groups
    ]
    plain = settings.temperature == 1 and settings.top_p == 1 and settings.top_k == 0
    sampling = None if plain else Sampling(settings.temperature, settings.top_k, settings.top_p)
    scores = response_log_probs(model, tokens, token_budget=train.token_budget, layout=train.layout, sampling=sampling)
    for group, scored in zip(groups, scores, strict=True):
        for index, (drawn, columns, sums) in enumerate(zip(group.samples, scored.tokens, scored.sums, strict=True)):
            # Column 0 is the raw Q'; the last is the distribution sampled from, the same one when sampling is plain.
            logs = columns[:, -1].tolist()
            drift.add(group.row["group_id"], index, drawn.log_q, logs)
            yield {
                **{key: group.row[key] for key in ("group_id", "split", "target", "prompt")},
                **{key: group.row[key] for key in ("policy_prompt_ids", "prior_prompt_ids")},
                "index": index,
                "response_ids": drawn.ids,
                "text": tokenizer.decode(drawn.ids, skip_special_tokens=True),
                "finish_reason": "stop" if drawn.complete else "length",
                "token_log_q": logs,
                "log_q": float(sums[-1]),
                "log_p_start": float(sums[0]),
                "sampler_token_log_q": drawn.log_q,
                "sampler_log_q": float(sum(drawn.log_q)),
            }
