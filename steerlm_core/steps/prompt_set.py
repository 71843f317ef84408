"""The prompt set: which prompts, which targets, which of them are held out.

Drawn once, in prepare, from the run's seed. Train and held-out pairs never share a prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from steerlm_core.attributes import Target
from steerlm_core.config import PromptFormat, PromptsConfig, RunConfig, digest, local_path
from steerlm_core.errors import DataError, PromptTooLongError
from steerlm_core.progress import Progress, unheard
from steerlm_core.prompts import Tokenizer, prompt_ids
from steerlm_core.schemas import PROMPTS

_PROMPT_STREAM, _TARGET_STREAM = 11, 12  # names of the random streams, so that no two draws share one


@dataclass(frozen=True)
class Pair:
    """A prompt and the target that is asked of the response."""

    prompt: str
    target: Target
    split: str

    @property
    def group_id(self) -> str:
        """Identity of the group: the prompt and the target, nothing else."""
        return digest([self.prompt, self.target])[:16]


def read_prompts(config: RunConfig, fetch: Callable[[str], Path] = local_path) -> tuple[list[str], list[str]]:
    """Return the distinct prompts of the run, in their order, and what was wrong with lines skipped.

    Raises:
        DataError: The file is missing or empty, or too many of its lines are unusable.
    """
    source = config.prompts.source
    if source == "embedded:stories":
        from steerlm_core.embedded.stories import all_prompts

        return all_prompts(), []
    path = fetch(source)
    prompts, bad = [], []
    for number, row in read_json_lines(path, "prompts.source"):
        prompt = row if isinstance(row, str) else _prompt_of(row, config.prompts)
        if isinstance(row, str) or prompt is None:
            bad.append(f"{path}:{number}: " + (row if isinstance(row, str) else _no_prompt(row, config.prompts)))
        else:
            prompts.append(prompt)
    if bad and len(bad) > config.prompts.max_bad_lines * (len(bad) + len(prompts)):
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise DataError(f"{bad[0]}{more}. Mend the file, or allow some with prompts.max_bad_lines.")
    if not prompts:
        raise DataError(
            f"{path}: holds no prompt; expected one JSON object a line with the key '{config.prompts.field}'."
        )
    return list(dict.fromkeys(prompts)), bad


def read_json_lines(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (line number, object) of a JSON-lines file; a string in place of the object says what is wrong.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines also splits at U+2028, which JSON allows
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: '{path}' cannot be read ({error}).") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"not valid JSON ({error.msg} at column {error.colno})"
            continue
        yield number, row if isinstance(row, dict) else f"expected a JSON object, found {type(row).__name__}"


def draw_pairs(prompts: list[str], config: RunConfig) -> list[Pair]:
    """Split the prompts and give each pair its target: `held_out` pairs, then `train` pairs.

    Where there are fewer prompts than pairs, prompts come again with another target.

    Raises:
        DataError: There are not enough prompts to keep the splits apart.
    """
    wanted = {"held_out": config.prompts.held_out, "train": config.prompts.train}
    if len(prompts) < 2:
        raise DataError(f"{config.prompts.source}: one prompt only; train and held-out pairs need one each at least.")
    order = np.random.default_rng([config.seed, _PROMPT_STREAM]).permutation(len(prompts))
    share = wanted["held_out"] / sum(wanted.values())
    cut = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    pools = {"held_out": order[:cut], "train": order[cut:]}
    targets = _targets(config)
    return [
        pair
        for split, pool in pools.items()
        for pair in _pairs_of(split, [prompts[i] for i in pool], wanted[split], targets, config)
    ]


def _pairs_of(
    split: str, prompts: list[str], count: int, targets: Iterator[Target], config: RunConfig
) -> Iterator[Pair]:
    most = len(prompts) * _distinct_targets(config)
    if count > most:
        raise DataError(
            f"{config.prompts.source}: only {most} distinct {split} pairs can be made of the {len(prompts)} prompt(s) "
            f"of that split, {count} are wanted. Give more prompts or targets, or lower prompts.train and "
            "prompts.held_out (their ratio splits the prompts)."
        )
    seen: set[str] = set()
    while len(seen) < count:
        pair = Pair(prompts[len(seen) % len(prompts)], next(targets), split)
        if pair.group_id not in seen:
            seen.add(pair.group_id)
            yield pair


def _distinct_targets(config: RunConfig) -> int:
    fixed = config.prompts.targets
    if isinstance(fixed, str):
        return math.prod(len(spec.levels) for spec in config.attributes)
    return len({tuple(sorted(target.items())) for target in fixed})


def _targets(config: RunConfig) -> Iterator[Target]:
    fixed = config.prompts.targets
    rng = np.random.default_rng([config.seed, _TARGET_STREAM])
    number = 0
    while True:
        if isinstance(fixed, str):
            yield {spec.name: int(rng.integers(spec.low, spec.high + 1)) for spec in config.attributes}
        else:
            yield config.check_target(fixed[number % len(fixed)], f"prompts.targets[{number % len(fixed)}]")
        number += 1


def tokenise(
    pairs: list[Pair], config: RunConfig, tokenizer: Tokenizer, context: int | None, progress: Progress = unheard
) -> pa.Table:
    """Return the prompt set as a table (schema PROMPTS), checked against the context length.

    Args:
        pairs: The pairs.
        config: The configuration.
        tokenizer: The prior's, which is the policy's too.
        context: Positions of the model; None: it does not say.
        progress: Told how many prompts are done.

    Raises:
        PromptTooLongError: A prompt leaves no room for a response of max_new_tokens.
    """
    rows = []
    for number, pair in enumerate(pairs, 1):
        row = _row(pair, config.prompts.format, tokenizer)
        _check_length(row, config, context)
        rows.append(row)
        progress(number, len(pairs), "prompts")
    return pa.Table.from_pylist(rows, PROMPTS)


def _row(pair: Pair, prompt_format: PromptFormat, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "group_id": pair.group_id,
        "split": pair.split,
        "prompt": pair.prompt,
        "target": list(pair.target.items()),
        "policy_prompt_ids": prompt_ids(pair.prompt, pair.target, prompt_format, tokenizer),
        "prior_prompt_ids": prompt_ids(pair.prompt, None, prompt_format, tokenizer),
    }


def _check_length(row: dict[str, Any], config: RunConfig, context: int | None) -> None:
    """Refuse a prompt that leaves no room for a response."""
    length, limit = len(row["policy_prompt_ids"]), config.generate.max_new_tokens
    if context is not None and length + limit > context:
        raise PromptTooLongError(
            f"{config.prompts.source}: prompt {row['prompt'][:60]!r}… has {length} tokens; with "
            f"generate.max_new_tokens = {limit} it exceeds the model's context of {context}. Shorten or "
            "remove it, or lower max_new_tokens."
        )


def _prompt_of(row: dict[str, Any], config: PromptsConfig) -> str | None:
    value = row.get(config.field)
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value.strip() else None


def _no_prompt(row: dict[str, Any], config: PromptsConfig) -> str:
    return f"no text under the key '{config.field}' (keys: {', '.join(row) or 'none'})"
