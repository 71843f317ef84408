"""What can be known to be wrong before a run begins."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from steerlm_core.config import RunConfig
from steerlm_core.raters import check_raters

_EMBEDDED = "embedded:stories"


def check_data(config: RunConfig) -> list[str]:
    """Check raters, prompts, targets and annotated texts, without any model; returns the lines that are skipped.

    Raises:
        SteerLMError: Of the kind that fits, with the place and the way out.
    """
    from steerlm_core.steps.annotate import check_source
    from steerlm_core.steps.prompt_set import draw_pairs, read_prompts

    check_raters(config.raters)
    with _inputs() as fetch:
        prompts, skipped = read_prompts(config, fetch)
        draw_pairs(prompts, config)
        check_source(config, fetch)
    return skipped


def check_models(config: RunConfig) -> bool:
    """Check the models that exist, and the prompts against their context; False where the prior has yet to be made.

    Raises:
        SteerLMError: Of the kind that fits, with the place and the way out.
    """
    from steerlm_core.models.loading import resolve_model
    from steerlm_core.steps.prepare import preflight

    with _inputs() as fetch:
        for name in ("policy", "attribute"):
            reference = getattr(config.models, name)
            if reference not in (None, _EMBEDDED):
                resolve_model(reference, config.seed, f"models.{name}", fetch=fetch)
        if config.models.prior == _EMBEDDED:
            return False
        preflight(config, fetch)
    return True


@contextmanager
def _inputs() -> Iterator[Callable[[str], Path]]:
    """Bring what lies in a bucket here for as long as it is looked at."""
    from steerlm_core.store.inputs import Inputs

    with tempfile.TemporaryDirectory(prefix="steerlm-") as folder:
        yield Inputs(Path(folder)).fetch
