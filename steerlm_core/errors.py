"""What a user can get wrong, as types.

Every message names the bad value, where it stands, and the way out. The command line prints
the message without a traceback and exits with code 2. `assert` is for our own invariants.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SteerLMError(Exception):
    """Base of every error whose cause lies in what the user gave or in the world around us.

    Attributes:
        reason: Its class in one word, for metrics; empty where only its type says it.
    """

    reason = ""


class ConfigError(SteerLMError):
    """The configuration cannot be used as written."""


class UnknownAttributeError(SteerLMError):
    """A target or a label names an attribute that the run does not define."""


class LevelError(SteerLMError):
    """A level lies outside the range of its attribute, or is no integer."""


class DataError(SteerLMError):
    """A prompt file, an annotated file or a stored table holds something unusable."""


class PromptTooLongError(DataError):
    """A prompt and its response do not fit into the context of a model."""


class ModelError(SteerLMError):
    """A model cannot be loaded, or does not fit the others of the run."""


class RunStateError(SteerLMError):
    """The run root does not hold what the command needs, or holds another run."""


class ForeignOutputError(RunStateError):
    """A step's output exists already and was made from other inputs or another configuration."""


class LeaseLostError(RunStateError):
    """Another runner has taken over the step that this one was doing."""


class StoreError(SteerLMError):
    """The place where the run lies cannot be reached, or refuses what was asked of it."""


class StoreRefusedError(StoreError):
    """The place where the run lies answers, and refuses: no bucket of that name, no right, a wrong key."""


class ScratchError(SteerLMError):
    """A local copy of something in a bucket cannot be written."""


class KubeflowError(SteerLMError):
    """Kubeflow Pipelines cannot be reached, or refuses what was asked of it."""


class CaptureError(SteerLMError):
    """A gate has failed: log-probabilities that must agree do not."""


class NonFiniteError(SteerLMError):
    """A loss, a weight or a log-probability is NaN or infinite where it must not be."""


class OutOfMemoryError(SteerLMError):
    """The work does not fit into the memory that it has been given."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest to `word`, or an empty string."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
