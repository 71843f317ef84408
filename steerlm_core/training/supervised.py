"""Supervised fine-tuning: SteerLM v1, the control arm, and the embedded base model.

A batch holds examples of similar length, and is cut into micro-batches where it still holds much
padding or many tokens. The loss is the mean over the tokens of the batch that are to be learned. The
learning rate falls to zero over the passes, or tokens, asked for: at a constant one the model carries
the noise of its last steps, and policy 0 would start with that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from steerlm_core.annotated_text import AnnotatedText
from steerlm_core.attributes import AttributeSpec
from steerlm_core.config import FitConfig, PromptFormat
from steerlm_core.errors import DataError, NonFiniteError
from steerlm_core.progress import Progress, unheard
from steerlm_core.prompts import Tokenizer, prompt_ids
from steerlm_core.training.batches import length_batches

_WARMUP_STEPS = 10
_CLIP_NORM = 1.0
# A micro-batch ends where it would hold more padding than this share, or more tokens than this.
_MOST_PADDING = 0.25
_MOST_TOKENS = 2048


@dataclass(frozen=True)
class Example:
    """A sequence to learn from.

    Attributes:
        ids: Token ids of prompt and response, end token included.
        learn_from: Index of the first token that is learned: the length of the prompt; at least 1.
    """

    ids: tuple[int, ...]
    learn_from: int


@dataclass(frozen=True)
class SftResult:
    """What supervised fine-tuning did.

    Attributes:
        tokens: Tokens seen in training, prompts included, padding not.
        epochs: Passes begun.
        best_epoch: The pass whose model was kept; the last where no early stopping was asked for.
        validation_losses: Loss per learned token, before the first pass and after each.
    """

    tokens: int
    epochs: int
    best_epoch: int
    validation_losses: tuple[float, ...]


def sft_examples(
    texts: Sequence[AnnotatedText],
    attributes: Sequence[AttributeSpec],
    prompt_format: PromptFormat,
    tokenizer: Tokenizer,
) -> list[Example]:
    """Turn annotated texts into examples: prompt with label, then response and end token, which are learned.

    A response that was cut has no end token.
    """
    end = int(tokenizer.eos_token_id)  # type: ignore[attr-defined]
    examples = []
    for text in texts:
        prompt = prompt_ids(text.prompt, text.target(attributes), prompt_format, tokenizer)
        response = tokenizer.encode(text.response, add_special_tokens=False)
        examples.append(Example((*prompt, *response, *([end] if text.complete else [])), len(prompt)))
    return examples


def fit_sft(
    model_folder: Path,
    examples: Sequence[Example],
    config: FitConfig,
    *,
    validation: Sequence[Example],
    output: Path,
    seed: int,
    max_tokens: int | None = None,
    progress: Progress = unheard,
) -> SftResult:
    """Fine-tune a model on examples and save it with its tokenizer.

    Args:
        model_folder: The model to start from.
        examples: What it learns.
        config: Optimizer settings, and when to stop.
        validation: Examples that decide which pass was the best.
        output: Folder that receives the model.
        seed: Order of the examples.
        max_tokens: Train until so many tokens were seen and keep the last model: no early stopping.
        progress: Told how many steps are done of the most that there may be, or how many tokens of `max_tokens`.

    Raises:
        DataError: There is nothing to train or validate on.
        NonFiniteError: The loss is NaN or infinite.
    """
    if not examples or not validation:
        raise DataError(
            f"fine-tuning needs examples; got {len(examples)} to train and {len(validation)} to validate on."
        )
    model: Any = AutoModelForCausalLM.from_pretrained(
        model_folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(model, config.learning_rate, config.weight_decay)
    if max_tokens is None:
        result = _fit_early_stopping(trainer, examples, validation, config, seed, progress)
    else:
        result = _fit_tokens(trainer, examples, validation, config, seed, max_tokens, progress)
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(output)
    return result


class Trainer:
    """AdamW on the mean loss of the learned tokens of a batch."""

    def __init__(
        self, model: PreTrainedModel, learning_rate: float, weight_decay: float, warmup_steps: int = _WARMUP_STEPS
    ) -> None:
        """Train `model` in place, with a linear warm-up."""
        self.model = model
        self.tokens = 0
        self.steps = 0
        self._rate, self._warmup_steps = learning_rate, warmup_steps
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.95)
        )

    def step(self, batch: Sequence[Example], rate: float) -> float:
        """Take one step on a batch at `rate` times the learning rate, and return its loss."""
        self.model.train()
        self.steps += 1
        rate = rate * min(1.0, self.steps / self._warmup_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * rate
        learned = sum(len(example.ids) - example.learn_from for example in batch)
        total = 0.0
        for micro in micro_batches(batch):
            loss = nll(self.model, micro) / learned
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise NonFiniteError(f"fine-tuning: the loss of step {self.steps} is {total}; lower the learning rate.")
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.tokens += sum(len(example.ids) for example in batch)
        return total


@torch.no_grad()
def validation_loss(model: PreTrainedModel, examples: Sequence[Example]) -> float:
    """Return the loss per learned token, in nats."""
    model.eval()
    learned = sum(len(example.ids) - example.learn_from for example in examples)
    return sum(nll(model, micro).item() for micro in micro_batches(examples)) / learned


def nll(model: PreTrainedModel, examples: Sequence[Example]) -> Tensor:
    """Return the summed negative log-likelihood of the learned tokens; one forward pass."""
    width = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full((len(examples), width), -100)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        labels[row, example.learn_from : len(example.ids)] = ids[row, example.learn_from : len(example.ids)]
    device = model.device
    # Padding stands right of the text, where a causal model does not look.
    logits = model(input_ids=ids.to(device), use_cache=False).logits  # (B, T, V)
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten().to(device), reduction="sum")


def micro_batches(batch: Sequence[Example]) -> Iterator[list[Example]]:
    """Cut a batch, sorted by length, into pieces with little padding."""
    piece: list[Example] = []
    real = 0
    for example in sorted(batch, key=lambda example: -len(example.ids)):
        padded = (len(piece) + 1) * (len(piece[0].ids) if piece else len(example.ids))
        if piece and (padded > _MOST_TOKENS or 1 - (real + len(example.ids)) / padded > _MOST_PADDING):
            yield piece
            piece, real = [], 0
        piece.append(example)
        real += len(example.ids)
    if piece:
        yield piece


def batches(examples: Sequence[Example], size: int, seed: int, epoch: int) -> Iterator[list[Example]]:
    """Yield the examples of one pass in random batches."""
    lengths = [len(example.ids) for example in examples]
    for rows in length_batches(lengths, size, seed, epoch):
        yield [examples[row] for row in rows]


def cosine(done: float, final: float = 0.0) -> float:
    """Return the factor of the learning rate when a share `done` of the training is behind."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _fit_early_stopping(
    trainer: Trainer,
    examples: Sequence[Example],
    validation: Sequence[Example],
    config: FitConfig,
    seed: int,
    progress: Progress,
) -> SftResult:
    losses = [validation_loss(trainer.model, validation)]
    best, best_weights = 0, _weights(trainer.model)
    most_tokens = config.epochs * sum(len(example.ids) for example in examples)
    most_steps = config.epochs * math.ceil(len(examples) / config.batch)
    for epoch in range(1, config.epochs + 1):
        for batch in batches(examples, config.batch, seed, epoch):
            trainer.step(batch, cosine(trainer.tokens / most_tokens))
            progress(trainer.steps, most_steps, "steps")
        losses.append(validation_loss(trainer.model, validation))
        if losses[-1] < losses[best]:
            best, best_weights = epoch, _weights(trainer.model)
        if epoch - best >= config.patience:
            break
    trainer.model.load_state_dict(best_weights)
    return SftResult(trainer.tokens, len(losses) - 1, best, tuple(losses))


def _fit_tokens(
    trainer: Trainer,
    examples: Sequence[Example],
    validation: Sequence[Example],
    config: FitConfig,
    seed: int,
    max_tokens: int,
    progress: Progress,
) -> SftResult:
    losses = [validation_loss(trainer.model, validation)]
    while trainer.tokens < max_tokens:
        for batch in batches(examples, config.batch, seed, len(losses)):
            trainer.step(batch, cosine(trainer.tokens / max_tokens))
            progress(min(trainer.tokens, max_tokens), max_tokens, "tokens")
            if trainer.tokens >= max_tokens:
                break
        losses.append(validation_loss(trainer.model, validation))
    return SftResult(trainer.tokens, len(losses) - 1, len(losses) - 1, tuple(losses))


def _weights(model: PreTrainedModel) -> Mapping[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
