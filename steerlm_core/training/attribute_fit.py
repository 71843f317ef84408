"""Training of the attribute model: closed-form ridge regression first, then the trunk.

The head starts as the ridge solution on the features of the untouched trunk. With `trunk: freeze`
that is all; with `trunk: train` head and trunk go on together, on the mean squared error in levels of
the attributes that a text has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from steerlm_core.annotated_text import AnnotatedText, check_annotated, is_missing
from steerlm_core.attributes import AttributeSpec
from steerlm_core.config import FitConfig
from steerlm_core.errors import DataError, NonFiniteError
from steerlm_core.models.attribute_model import (
    AttributeModel,
    Pair,
    Quality,
    attribute_model_from_trunk,
    measure_quality,
    run_sorted,
)
from steerlm_core.progress import Progress, unheard
from steerlm_core.training.batches import length_batches
from steerlm_core.training.supervised import cosine

_WARMUP_STEPS = 10
_CLIP_NORM = 1.0
_RIDGE = 30.0


def fit_attribute_model(
    trunk_folder: Path,
    texts: Sequence[AnnotatedText],
    config: FitConfig,
    *,
    attributes: Sequence[AttributeSpec],
    validation: Sequence[AnnotatedText],
    output: Path,
    seed: int,
    progress: Progress = unheard,
) -> dict[str, Quality]:
    """Train an attribute model and save it.

    Args:
        trunk_folder: A language model in Hugging Face form.
        texts: What it learns.
        config: Optimizer settings, when to stop, and whether the trunk is trained.
        attributes: One output each, in this order.
        validation: Texts that decide which pass was the best, and on which the quality is measured.
        output: Folder that receives the model.
        seed: Order of the texts.
        progress: Told how many texts are read for the ridge regression, then how many steps are done of the most.

    Returns:
        The quality on the validation texts, by attribute.

    Raises:
        DataError: There are no texts, or one has no level at all.
        NonFiniteError: The loss is NaN or infinite.
    """
    for name, part in (("training texts", texts), ("validation texts", validation)):
        if not part:
            raise DataError(f"attribute model: there are no {name}; give more annotated texts.")
        check_annotated(part, attributes, f"attribute model, {name}")
    model = attribute_model_from_trunk(trunk_folder, attributes)
    pairs, levels = _encode(model, texts), _levels(texts)
    held_pairs, held_levels = _encode(model, validation), _levels(validation)
    _solve_head(model, pairs, levels, config.batch, progress)
    if config.trunk == "train":
        _train(model, (pairs, levels), (held_pairs, held_levels), config, seed, progress)
    model.quality = measure_quality(_predict(model, held_pairs, config.batch), held_levels, attributes)
    model.save(output)
    return model.quality


def masked_error(predicted: Tensor, levels: Tensor) -> Tensor:
    """Return the mean squared error over the levels [B, A] that are there (not NaN)."""
    known = ~levels.isnan()
    return (predicted[known] - levels[known]).square().mean()


def _solve_head(model: AttributeModel, pairs: Sequence[Pair], levels: Tensor, batch: int, progress: Progress) -> None:
    """Set the head to the ridge solution on the trunk's features, attribute by attribute."""
    model.eval()
    with torch.no_grad():
        features = run_sorted(
            pairs, model.features, model.head.in_features, batch, lambda done, of: progress(done, of, "texts")
        ).double()  # (n, F)
        mean, scale = features.mean(0), features.std(0, unbiased=False).clamp_min(1e-6)
        scaled = (features - mean) / scale
        for column in range(levels.shape[1]):
            known = ~levels[:, column].isnan()
            if not known.any():
                continue
            x, y = scaled[known], levels[known, column].double()
            gram = x.T @ x + _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
            weight = torch.linalg.solve(gram, x.T @ (y - y.mean())) / scale
            model.head.weight[column] = weight.float()
            model.head.bias[column] = (y.mean() - mean @ weight).float()


def _train(
    model: AttributeModel,
    train: tuple[Sequence[Pair], Tensor],
    validation: tuple[Sequence[Pair], Tensor],
    config: FitConfig,
    seed: int,
    progress: Progress,
) -> None:
    """Train trunk and head; leave the weights of the best pass, which may be the ridge solution."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best_loss, best_epoch, best_weights = _validate(model, validation, config.batch), 0, _weights(model)
    lengths = [len(prompt) + len(response) for prompt, response in train[0]]
    steps, most_steps = 0, config.epochs * math.ceil(len(lengths) / config.batch)
    for epoch in range(1, config.epochs + 1):
        for rows in length_batches(lengths, config.batch, seed, epoch):
            steps += 1
            rate = config.learning_rate * min(1.0, steps / _WARMUP_STEPS) * cosine(steps / most_steps)
            _step(model, optimizer, [train[0][i] for i in rows], train[1][rows], rate)
            progress(steps, most_steps, "steps")
        loss = _validate(model, validation, config.batch)
        if loss < best_loss:
            best_loss, best_epoch, best_weights = loss, epoch, _weights(model)
        if epoch - best_epoch >= config.patience:
            break
    model.load_state_dict(best_weights)
    model.eval()


def _step(
    model: AttributeModel, optimizer: torch.optim.Optimizer, pairs: list[Pair], levels: Tensor, rate: float
) -> None:
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = masked_error(model(pairs), levels.to(model.head.weight.device))
    if not math.isfinite(loss.item()):
        raise NonFiniteError(
            f"attribute model: the loss is {loss.item()} at learning rate {rate:.2g}; lower the learning rate."
        )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad()


def _encode(model: AttributeModel, texts: Sequence[AnnotatedText]) -> list[Pair]:
    return model.encode([text.prompt for text in texts], [text.response for text in texts])


def _levels(texts: Sequence[AnnotatedText]) -> Tensor:
    return torch.tensor([[math.nan if is_missing(level) else level for level in text.levels] for text in texts])


def _predict(model: AttributeModel, pairs: Sequence[Pair], batch: int) -> Tensor:
    model.eval()
    with torch.no_grad():
        return run_sorted(pairs, model, len(model.attributes), batch)


def _validate(model: AttributeModel, data: tuple[Sequence[Pair], Tensor], batch: int) -> float:
    return masked_error(_predict(model, data[0], batch), data[1]).item()


def _weights(model: AttributeModel) -> Mapping[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
