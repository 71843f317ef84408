"""A world small enough to list: every response, so that P(y|a,x) and the true KL are known.

Six symbols besides the end token, at most four tokens: 259 complete responses and 1,296 that the
length limit cuts, which this world keeps. The prior is a tiny transformer trained on strings of
letters, the attribute model a regression on top of it, and policy 0 is the prior itself, which
has never seen a label.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from steerlm_core.annotated_text import AnnotatedText
from steerlm_core.attributes import AttributeSpec
from steerlm_core.config import FitConfig, RunConfig, parse_config
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.loading import ModelCache
from steerlm_core.models.scoring import response_log_probs
from steerlm_core.prompts import prompt_ids
from steerlm_core.steps.label import target_log_likelihood
from steerlm_core.steps.prompt_set import Pair
from steerlm_core.training.attribute_fit import fit_attribute_model
from steerlm_core.training.supervised import Example, fit_sft

LETTERS = ("a", "b")
TONE = AttributeSpec(name="tone", high=2)
SYMBOLS = (*LETTERS, ":", *(f"tone:{level}" for level in TONE.levels))
END = "<end>"
CANDIDATES = 4  # of the small form
LONGEST = 4  # tokens of a response, the end token included


def build(folder: Path) -> RunConfig:
    """Make prior, attribute model and prompts below `folder`; returns the run's configuration."""
    torch.manual_seed(0)
    _new_model().save_pretrained(folder / "blank")
    _tokenizer().save_pretrained(folder / "blank")
    _train_prior(folder)
    _train_attribute_model(folder)
    prompts = ["".join(f"{letter} " for letter in word).strip() for word in itertools.product(LETTERS, repeat=7)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return parse_config(_config(folder), "toy")


def _config(folder: Path) -> dict[str, object]:
    return {
        "attributes": [TONE.model_dump()],
        "models": {
            key: str(folder / name)
            for key, name in (("prior", "prior"), ("policy", "prior"), ("attribute", "attribute"))
        },
        "prompts": {
            "source": str(folder / "prompts.jsonl"),
            "train": 192,
            "held_out": 128,
            "prompts_per_part": 64,
            "format": {"kind": "template", "with_label": "{prompt} {label} :", "without_label": "{prompt} :"},
        },
        "generate": {"candidates": 10, "max_new_tokens": LONGEST, "batch": 1024, "truncated": "keep"},
        "label": {"beta_concentration": 12.0},
        "train": {"learning_rate": 1e-3, "epochs": 2, "batch_groups": 8},
        "convergence": {"tolerance": 0.0, "min_relative_improvement": 0.001, "bootstrap_samples": 500},
        "max_iterations": 6,
        "runtime": {"threads": 1},
    }


def small(config: RunConfig, **generate: object) -> RunConfig:
    """Return the same world with two iterations of few pairs and candidates: seconds of work."""
    raw = config.model_dump(mode="json")
    raw["prompts"] |= {"train": 12, "held_out": 8, "prompts_per_part": 5}
    raw["generate"] |= {"candidates": CANDIDATES, "batch": 16, **generate}
    raw["convergence"] |= {"min_ess": 1.0}
    return parse_config(raw | {"max_iterations": 2}, "toy")


class Posterior:
    """P(y|a,x) of some pairs over every response, and the KL of any policy to it."""

    def __init__(self, config: RunConfig, pairs: list[Pair]) -> None:
        self._config, self._pairs, self._cache = config, pairs, ModelCache()
        prior = Path(config.models.prior)
        self._tokenizer = self._cache.tokenizer(prior)
        complete = [word for length in range(LONGEST) for word in itertools.product(SYMBOLS, repeat=length)]
        cut = list(itertools.product(SYMBOLS, repeat=LONGEST))
        ids = {symbol: self._tokenizer.convert_tokens_to_ids(symbol) for symbol in (*SYMBOLS, END)}
        words = [*((*word, END) for word in complete), *cut]
        self._responses = tuple(tuple(ids[symbol] for symbol in word) for word in words)
        self._texts = [" ".join(word) for word in (*complete, *cut)]
        self.log_p = self._target(self._log_probs(self._cache.causal_lm(prior, "float32"), labelled=False))

    def kl(self, policy: Path) -> float:
        """Mean KL(P(y|a,x) || Q(y|a,x)) over the pairs, exact: a policy's probabilities sum to 1."""
        model = ModelCache().causal_lm(policy, "float32")
        log_q = self._log_probs(model, labelled=True)
        assert abs(float(log_q.exp().sum(-1).mean()) - 1) < 1e-5
        return float((self.log_p.exp() * (self.log_p - log_q)).sum(-1).mean())

    def _log_probs(self, model: PreTrainedModel, labelled: bool) -> torch.Tensor:  # [pairs, responses]
        prompts = [
            prompt_ids(pair.prompt, pair.target if labelled else None, self._config.prompts.format, self._tokenizer)
            for pair in self._pairs
        ]
        groups = [TokenGroup(tuple(prompt), self._responses) for prompt in prompts]
        return torch.stack([score.sums[:, 0] for score in response_log_probs(model, groups, token_budget=4096)])

    def _target(self, log_prior: torch.Tensor) -> torch.Tensor:
        model = self._cache.attribute_model(Path(self._config.models.attribute or ""))
        rows = []
        for pair, log_p in zip(self._pairs, log_prior, strict=True):
            predicted = model.predict([pair.prompt] * len(self._texts), self._texts, 1024)
            targets = [pair.target] * len(self._texts)
            rows.append(target_log_likelihood(predicted, targets, model, self._config) + log_p)
        return torch.stack(rows).log_softmax(-1)


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {symbol: number for number, symbol in enumerate((END, *SYMBOLS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def _new_model() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SYMBOLS) + 1,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.1,
        )
    )


def _words(count: int, seed: int) -> list[tuple[str, str]]:
    """Prompts and responses of letters; the first letter of a response likes that of its prompt."""
    rng = np.random.default_rng(seed)
    words = []
    for _ in range(count):
        prompt = rng.choice(LETTERS, 7)
        response = rng.choice(LETTERS, rng.integers(0, LONGEST))
        if len(response) and rng.random() < 0.4:
            response[0] = prompt[0]
        words.append((" ".join(prompt), " ".join(response)))
    return words


def _train_prior(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "blank")

    def examples(count: int, seed: int) -> list[Example]:
        ids = [(tokenizer.encode(f"{x} :"), tokenizer.encode(f"{y} {END}")) for x, y in _words(count, seed)]
        return [Example((*prompt, *response), len(prompt)) for prompt, response in ids]

    settings = FitConfig(epochs=3, batch=64, learning_rate=3e-3)
    fit_sft(folder / "blank", examples(2000, 1), settings, validation=examples(200, 2), output=folder / "prior", seed=0)


def _train_attribute_model(folder: Path) -> None:
    """The tone of a response: the number of its letters "a", two at most."""
    texts = [AnnotatedText(prompt, text, (min(2.0, text.count("a")),)) for prompt, text in _words(600, 3)]
    fit_attribute_model(
        folder / "prior",
        texts[100:],
        FitConfig(epochs=4, learning_rate=2e-3),
        attributes=[TONE],
        validation=texts[:100],
        output=folder / "attribute",
        seed=0,
    )
