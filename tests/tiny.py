"""A run too small to be good, whole in a few seconds: for tests of what is around a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.once import locked


def tiny_model() -> Path:
    """Return a base model that is made once and kept in the cache."""
    from steerlm_core.config import cache_home
    from steerlm_core.training.base_model import BaseConfig, base_model

    config = BaseConfig(hidden=32, layers=1, heads=2, intermediate=64, stories=320, validation_stories=8)
    with locked(cache_home() / "tiny.lock"):
        return base_model(1, config=config)


def tiny_settings(**changes: Any) -> dict[str, Any]:
    """Return a configuration of two iterations."""
    settings = {
        "name": "tiny",
        "max_iterations": 2,
        "attributes": [{"name": "verbosity", "description": "many words"}, {"name": "mood"}],
        "raters": {"verbosity": "word_count", "mood": "sentiment"},
        "models": {"prior": str(tiny_model())},
        "annotated": {"attribute_texts": 32, "bootstrap_texts": 16},
        "attribute_fit": {"epochs": 1},
        "bootstrap_fit": {"epochs": 1},
        "prompts": {"train": 8, "held_out": 6, "prompts_per_part": 4},
        "generate": {"candidates": 3, "max_new_tokens": 12, "truncated": "keep"},
        "train": {"epochs": 1, "batch_groups": 4},
        "convergence": {
            "bootstrap_samples": 200,
            "min_ess": 1.0,
            "tolerance": 0.0,
            "min_relative_improvement": 0.01,
        },
        "runtime": {"threads": 1},
    }
    return {**settings, **changes}


def write_settings(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
