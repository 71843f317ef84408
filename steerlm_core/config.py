"""The typed run configuration: what a user writes in YAML, strict and documented field by field.

Every section has defaults that work; only `attributes` and `models.prior` must be given. A field
that changes a step's result enters that step's input digest through the section it stands in
(`steerlm_core.steps.output`); `max_iterations`, `runtime` and `TrainConfig.HOW` are outside every digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from steerlm_core.attributes import AttributeSpec, Target, check_target
from steerlm_core.errors import ConfigError, did_you_mean


class Section(BaseModel):
    """Base of every part of the configuration: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


Settings = TypeVar("Settings", bound=Section)


class PromptFormat(Section):
    """How a prompt and a label become the text that a model reads."""

    kind: Literal["template", "chat", "nemo"] = Field(
        "template",
        description="template: the two strings below; chat: the tokenizer's own chat template; "
        "nemo: the <extra_id_*> format of NeMo-Aligner.",
    )
    with_label: str = Field("{prompt}\n[{label}]\n", description="Template of the policy's prompt (kind: template).")
    without_label: str = Field("{prompt}\n", description="Template of the prior's prompt (kind: template).")
    label_in: Literal["system", "user"] = Field("system", description="Where the label stands (kind: chat).")
    system: str = Field("", description="System text of every prompt (kinds: chat, nemo).")


class PromptsConfig(Section):
    """The prompts, the targets that are asked of them, and the split."""

    source: str = Field("embedded:stories", description="A JSON-lines file, or embedded:stories.")
    field: str = Field("prompt", description="Key of the prompt text in each line; a list counts as its first item.")
    format: PromptFormat = PromptFormat()
    train: int = Field(192, ge=1, description="Number of (prompt, target) pairs that the policy trains on.")
    held_out: int = Field(
        64, ge=2, description="Number of held-out pairs, drawn once; the distance is measured on them."
    )
    targets: list[dict[str, int]] | Literal["uniform"] = Field(
        "uniform", description="uniform: every attribute's level drawn uniformly; or a list of targets, taken in turn."
    )
    prompts_per_part: int = Field(32, ge=1, description="Prompts in a part, the unit of work and of storage.")
    max_bad_lines: float = Field(0.0, ge=0, lt=1, description="Share of unusable lines above which prepare fails.")


class ModelsConfig(Section):
    """The three models. A reference is a directory, embedded:stories, or package:MODULE/FILE.gguf."""

    prior: str = Field(description="P(y|x): an unconditional response model.")
    policy: str | None = Field(
        None, description="SteerLM v1 model to start from; none: `bootstrap` makes it from the prior."
    )
    attribute: str | None = Field(None, description="Attribute model; none: trained on the annotated texts.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Type of the weights in every forward pass.")


class AnnotatedConfig(Section):
    """Annotated texts: what the attribute model and the SteerLM v1 bootstrap learn from."""

    source: str = Field(
        "embedded:stories",
        description="A JSON-lines file with `prompt`, `response` and one key per attribute; embedded:stories; or "
        "prior: responses sampled from the prior and annotated by the measured raters.",
    )
    attribute_texts: int = Field(1600, ge=8, description="Texts that the attribute model is trained on.")
    bootstrap_texts: int = Field(320, ge=8, description="Texts that the SteerLM v1 bootstrap is trained on.")
    validation_share: float = Field(0.2, gt=0, lt=1, description="Share of the texts kept for early stopping.")


class FitConfig(Section):
    """Supervised training: the attribute model, the bootstrap."""

    epochs: int = Field(20, ge=1, description="At most so many passes; the best on the validation texts is kept.")
    patience: int = Field(2, ge=1, description="Stop after so many epochs without a better validation loss.")
    batch: int = Field(32, ge=1, description="Texts in a batch.")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW peak; a short warm-up, then falling to zero.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay.")
    trunk: Literal["train", "freeze"] = Field("train", description="freeze: only the head learns (attribute model).")


class GenerateConfig(Section):
    """Sampling candidates, and the gates on their log-probabilities."""

    candidates: int = Field(8, ge=2, description="N, complete responses wanted in a group.")
    max_new_tokens: int = Field(64, ge=1, description="Length limit of a response, end token included.")
    temperature: float = Field(
        1.0, gt=0, description="Sampling temperature; log_q is that of the tempered distribution."
    )
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling; 1 is off.")
    top_k: int = Field(0, ge=0, description="Sample from the k likeliest tokens; 0 is off.")
    truncated: Literal["drop", "keep"] = Field("drop", description="What happens to responses cut by the limit.")
    batch: int = Field(256, ge=1, description="Sequences decoded together.")
    max_token_drift: float = Field(1.05, gt=1, description="Gate: largest mean exp|sampler_log_q - log_q| per token.")
    max_drifted_share: float = Field(
        0.001, ge=0, le=1, description="Gate: largest share of sequences whose summed drift exceeds log 3."
    )


class LabelConfig(Section):
    """P(a|x,y) from the attribute model's prediction."""

    likelihood: Literal["beta", "gaussian"] = Field(
        "beta", description="beta: HelpSteer2's; gaussian: sigma per attribute."
    )
    beta_concentration: float = Field(24.0, gt=0, description="alpha + beta of the Beta distribution.")
    sigma: dict[str, float] = Field({}, description="Gaussian sigma in levels; else estimated on the validation texts.")
    batch: int = Field(64, ge=1, description="Texts labelled together.")


class LoraConfig(Section):
    """Low-rank adapters instead of full fine-tuning."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: float = Field(32.0, gt=0, description="Scale of the adapters.")
    target_modules: list[str] | Literal["all-linear"] = Field("all-linear", description="Modules that get an adapter.")


class TrainConfig(Section):
    """SteerLM v2 training of one iteration.

    Attributes:
        HOW: Settings that say how the work is done, not what comes out; they may change between checkpoint and
            resume, and are outside every digest.
    """

    HOW: ClassVar[frozenset[str]] = frozenset(
        {
            "activation_checkpointing",
            "checkpoint_seconds",
            "engine",
            "keep_checkpoints",
            "layout",
            "offload_optimizer",
            "processes",
            "token_budget",
            "zero_stage",
        }
    )

    epochs: int = Field(2, ge=1, description="Passes over the training groups.")
    batch_groups: int = Field(16, ge=1, description="Groups in a global batch.")
    token_budget: int = Field(
        4096, ge=64, description="Tokens in one forward pass; a larger group is trained in two passes."
    )
    layout: Literal["auto", "shared_prefix", "padded"] = Field(
        "auto", description="auto: shared prefix where the model can, else padded rows with a warning."
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="Optimizer.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="After the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW betas.")
    clip_norm: float = Field(1.0, ge=0, description="Clip the gradient to this norm; 0 is off.")
    lora: LoraConfig | None = Field(None, description="Train adapters; merged into the saved model.")
    activation_checkpointing: bool = Field(False, description="Recompute activations in the backward pass.")
    engine: Literal["single", "deepspeed"] = Field("single", description="single process, or DeepSpeed.")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed ZeRO stage.")
    offload_optimizer: bool = Field(False, description="Keep the optimizer's state in CPU memory (DeepSpeed).")
    processes: int = Field(1, ge=1, description="Processes on this machine, started by torchrun (engine: deepspeed).")
    checkpoint_seconds: float = Field(300.0, gt=0, description="Write a checkpoint when the last is older than this.")
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints kept.")


class ConvergenceConfig(Section):
    """When the loop stops. See `steerlm_core.convergence`."""

    tolerance: float = Field(
        0.05, ge=0, description="converged: the distance's upper confidence bound is under this (nats)."
    )
    min_relative_improvement: float = Field(
        0.1, gt=0, lt=1, description="plateau: the improvement over the best so far is surely under this share of it."
    )
    patience: int = Field(2, ge=1, description="Iterations in a row that must be on the plateau.")
    confidence: float = Field(0.9, gt=0.5, lt=1, description="Two-sided level of every interval.")
    bootstrap_samples: int = Field(2000, ge=100, description="Resamples of the paired bootstrap over held-out groups.")
    min_ess: float = Field(2.0, ge=1, description="uninformative: the median effective sample size is under this.")


class RuntimeConfig(Section):
    """How the work is done here; outside every digest."""

    threads: int = Field(0, ge=0, description="Threads of a torch operation; 0: one per core.")
    keep_models: int | None = Field(
        None, ge=0, description="Newest iterations that keep their model; the best and the last always do; none: all."
    )
    keep_candidates: int | None = Field(
        None, ge=0, description="Newest iterations that keep candidates, labels, scores and groups; none: all."
    )
    lease_seconds: float = Field(
        60.0, gt=0, description="A runner that is silent for so long loses its step to another that waits."
    )
    backend: Literal["local", "torchrun", "pytorchjob"] | None = Field(
        None,
        description="Where training happens: local: this process; torchrun: train.processes processes of this machine; "
        "pytorchjob: a Kubernetes cluster, as --platform describes it; none: pytorchjob where the platform file in use "
        "(--platform, STEERLM_PLATFORM) sets train_job, else local or torchrun, by train.engine.",
    )
    tensorboard: str | None = Field(None, description="Folder of TensorBoard event files (extra: tensorboard).")
    mlflow: str | None = Field(None, description="Tracking URI of MLflow (extra: mlflow).")


class RunConfig(Section):
    """Everything a run depends on."""

    name: str = Field("steerlm", pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", description="Name of the run, for people.")
    seed: int = Field(1, ge=0, description="Every random draw of the run derives from it.")
    max_iterations: int = Field(8, ge=1, description="Most iterations; may be raised later.")
    attributes: list[AttributeSpec] = Field(
        min_length=1, description="The axes of steering, in the order of the label."
    )
    raters: dict[str, str] = Field(
        {}, description="Measured rater of an attribute (see `steerlm_core.raters`): judges texts beside the model."
    )
    models: ModelsConfig
    prompts: PromptsConfig = PromptsConfig()
    annotated: AnnotatedConfig = AnnotatedConfig()
    attribute_fit: FitConfig = FitConfig()
    bootstrap_fit: FitConfig = FitConfig()
    generate: GenerateConfig = GenerateConfig()
    label: LabelConfig = LabelConfig()
    train: TrainConfig = TrainConfig()
    convergence: ConvergenceConfig = ConvergenceConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _names_are_consistent(self) -> RunConfig:
        names = [spec.name for spec in self.attributes]
        if len(set(names)) != len(names):
            raise ValueError(f"attributes: a name stands twice in {names}")
        for section, keys in (("raters", self.raters), ("label.sigma", self.label.sigma)):
            for key in keys:
                if key not in names:
                    raise ValueError(f"{section}: unknown attribute '{key}'{did_you_mean(key, names)}")
        if self.prompts.targets != "uniform":
            for number, target in enumerate(self.prompts.targets):
                check_target(target, self.attributes, f"prompts.targets[{number}]")
        return self

    @property
    def attribute_names(self) -> list[str]:
        """Names of the attributes, in label order."""
        return [spec.name for spec in self.attributes]

    def check_target(self, target: Target, where: str) -> Target:
        """Check a target against the run's attributes; see `attributes.check_target`."""
        return check_target(target, self.attributes, where)

    def deciding(self) -> dict[str, Any]:
        """All that determines the run's results, as JSON-able values."""
        return self.model_dump(
            mode="json", exclude={"name": True, "max_iterations": True, "runtime": True, "train": set(TrainConfig.HOW)}
        )

    def digest(self) -> str:
        """Digest of all that determines the run's results."""
        return digest(self.deciding())


def local_path(reference: str) -> Path:
    """Return the path that a user has written."""
    return Path(reference).expanduser()


def cache_home() -> Path:
    """Where models made or unpacked here are kept between runs: $STEERLM_CACHE or ~/.cache/steerlm."""
    return Path(os.environ.get("STEERLM_CACHE") or Path.home() / ".cache" / "steerlm")


def digest(value: Any) -> str:
    """Return the sha256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_config(path: str | Path) -> RunConfig:
    """Read a YAML configuration.

    Raises:
        ConfigError: The file is missing, is no YAML mapping, or does not validate; the message
            lists every mistake with its place, and the nearest known key for an unknown one.
    """
    return parse_config(read_yaml(path, "`steerlm init` writes an example."), str(path))


def parse_config(raw: object, where: str) -> RunConfig:
    """Validate a configuration given as a mapping; `where` names its origin in messages."""
    return validated(RunConfig, raw, where)


def read_yaml(path: str | Path, way_out: str) -> object:
    """Read a YAML file.

    Args:
        path: The file.
        way_out: What to do where there is none, for the message.

    Raises:
        ConfigError: The file cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). {way_out}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def validated(model: type[Settings], raw: object, where: str) -> Settings:
    """Validate a mapping against a section; `where` names its origin in messages.

    Raises:
        ConfigError: It does not validate; the message lists every mistake as `load_config` says.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(raw).__name__}.")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(model, dict(item)) for item in error.errors()]
        raise ConfigError(f"{where}: {len(lines)} mistake(s)\n" + "\n".join(f"  {line}" for line in lines)) from error


def _explain(model: type[BaseModel], item: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"]) or "config"
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, item["loc"][:-1])
        return f"{place}: unknown key{did_you_mean(str(item['loc'][-1]), known)} Known here: {', '.join(known)}."
    if item["type"] == "missing":
        return f"{place}: required, and missing."
    message = str(item["msg"]).removeprefix("Value error, ")
    return message if item["type"] == "value_error" else f"{place}: {message} (found {item['input']!r})"


def _known_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return sorted(model.model_fields)
