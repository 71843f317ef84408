"""What a report says, as plain data: read from a run by `read`, shown by `html`, `markdown` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steerlm_core.config import RunConfig


@dataclass(frozen=True)
class Iteration:
    """One committed iteration.

    Attributes:
        number: From 0.
        fields: Its evaluation and its commit, merged.
        weights: How the diagnostics of the weights spread over the groups: seven quantiles each, by name.
        drift: Histogram of the sampler's drift: `edges` in nats, `counts` with one below and one above.
        curve: The training curve: `stride`, and a list for every number.
    """

    number: int
    fields: Mapping[str, Any]
    weights: Mapping[str, Sequence[float]]
    drift: Mapping[str, Sequence[float]]
    curve: Mapping[str, Any]


@dataclass(frozen=True)
class Levels:
    """Which levels came out, of the held-out candidates of one policy.

    Attributes:
        policy: What was sampled from, in words.
        counts: By attribute and judge: `[requested, found]`.
        steering: By attribute: rank correlation and error of every judge.
    """

    policy: str
    counts: Mapping[str, Mapping[str, Sequence[Sequence[int]]]]
    steering: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Answer:
    """One response of one policy; the text is a model's and not to be trusted."""

    policy: str
    text: str
    predicted: Mapping[str, float]
    measured: Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """What the policies said to one held-out prompt with one target."""

    prompt: str
    target: Mapping[str, int]
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Origin:
    """One committed output, and what it was made from.

    Attributes:
        key: Where it stands in the run.
        step: The step that made it.
        inputs: Content digest of everything that the step read, by name.
        digest: Digest of its own content.
        objects: Stored objects.
        size: Bytes of all of them.
    """

    key: str
    step: str
    inputs: Mapping[str, str]
    digest: str
    objects: int
    size: int


@dataclass(frozen=True)
class Spent:
    """Time and tokens of one step.

    Attributes:
        iteration: None outside of one.
        step: Its name.
        seconds: Over all attempts; None where no event tells.
        tokens: Tokens sampled, judged or trained on; None for steps that see none.
    """

    iteration: int | None
    step: str
    seconds: float | None
    tokens: int | None


@dataclass(frozen=True)
class RunData:
    """All that a report says of one run.

    Attributes:
        root: Where the run is kept, as given.
        run_id: Its id.
        config: Its configuration.
        versions: Of the software that began it.
        config_digest: Digest of the configuration.
        reason: Why the loop stands where it does: the decision in its own words.
        kind: The decision's kind; `running` where there is none yet.
        best: The best accepted iteration; None: policy 0.
        iterations: The committed ones.
        confirmation: Fresh distance and steering of the best policy; None before it.
        levels: Requested against found levels, for policy 0 and every policy after it, in order.
        quality: How well the attribute model predicts, by attribute.
        policy_0_losses: Validation losses of the SteerLM v1 bootstrap; empty where the user gave the model.
        samples: Responses side by side.
        spent: Time and tokens of every step.
        origins: Lineage, in the order of the work.
        warnings: What the steps warned of, with where.
    """

    root: str
    run_id: str
    config: RunConfig
    versions: Mapping[str, str]
    config_digest: str
    reason: str
    kind: str
    best: int | None
    iterations: Sequence[Iteration]
    confirmation: Mapping[str, Any] | None
    levels: Sequence[Levels]
    quality: Mapping[str, Mapping[str, float]]
    policy_0_losses: Sequence[float]
    samples: Sequence[Sample]
    spent: Sequence[Spent]
    origins: Sequence[Origin] = ()
    warnings: Sequence[tuple[str, str]] = field(default_factory=tuple)

    @property
    def best_policy(self) -> str:
        """The best policy, in words."""
        return policy_name(self.best)


def policy_name(iteration: int | None) -> str:
    """Return what people call the policy that an iteration trained; None: policy 0."""
    return "policy 0" if iteration is None else f"iteration {iteration}"
