"""The policy as the engines see it: a module from groups of tokens to log-probs of their responses.

    folder ─► causal LM, dropout off ─► LoRA adapters, if asked ─► Policy ─► … ─► safetensors, merged

Dropout is off everywhere: the one-pass gradient needs it, and so does agreement with the stored log-probs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from steerlm_core.config import LoraConfig
from steerlm_core.errors import ConfigError
from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.loading import load_causal_lm
from steerlm_core.models.packing import RowLayout
from steerlm_core.models.scoring import batch_log_probs, choose_layout
from steerlm_core.training.job import TrainJob

if TYPE_CHECKING:
    from peft import PeftModel


class Policy(nn.Module):
    """A causal language model that answers with summed log-probs of responses.

    One module with one forward, so that an engine's hooks see every use of every weight.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, layout: RowLayout) -> None:
        """Wrap a model, LoRA adapters included.

        Args:
            model: The model; `sizes` counts its weights, all and trained, before an engine cuts them up.
            layout: How groups become rows.
        """
        super().__init__()
        self.model = model
        self.layout = layout
        self.sizes = sum(w.numel() for w in self.parameters()), sum(w.numel() for w in self.trained().values())

    def forward(self, groups: Sequence[TokenGroup]) -> Tensor:
        """Return log Q(y|a,x) of every response, group after group, summed in float64; [candidates]."""
        tokens = batch_log_probs(self.model, groups, layout=self.layout)
        sums = tokens.log_probs.new_zeros(sum(tokens.candidates), dtype=torch.float64)
        return sums.index_add(0, tokens.candidate_index, tokens.log_probs.double())

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that learn, by name; a tied one stands once."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


def load_policy(job: TrainJob, groups: Sequence[TokenGroup], model: PreTrainedModel | None = None) -> Policy:
    """Load the model that training starts from, ready to be trained.

    Args:
        job: Names the folder, the type of the weights, the layout and the adapters.
        groups: What it will be trained on; a warning about the layout says what it costs there.
        model: The policy, where it is loaded already.
    """
    loaded = load_causal_lm(job.policy, job.dtype) if model is None else model
    _switch_off_dropout(loaded)
    loaded.config.use_cache = False
    if job.config.activation_checkpointing:
        _recompute_activations(loaded)
    layout = choose_layout(loaded, job.config.layout, groups)
    return Policy(loaded if job.config.lora is None else _with_adapters(loaded, job.config.lora, job.seed), layout)


def _switch_off_dropout(model: nn.Module) -> None:
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _recompute_activations(model: PreTrainedModel) -> None:
    # Under ZeRO-3 a gathered weight has another shape when recomputed, so shapes are not compared.
    kwargs = {"use_reentrant": False, "determinism_check": "none"}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    model.train()  # transformers recomputes in training mode only; dropout is off


def _with_adapters(model: PreTrainedModel, config: LoraConfig, seed: int) -> PeftModel:
    import peft

    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=config.target_modules, lora_dropout=0.0,
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, settings)
        except ValueError as error:
            raise ConfigError(f"train.lora.target_modules {config.target_modules!r} fits no module: {error}") from error


def export(policy: Policy, job: TrainJob) -> None:
    """Write the trained model to `job.output`: safetensors and tokenizer; for LoRA merged, the adapter beside it."""
    job.output.mkdir(parents=True, exist_ok=True)
    model: Any = policy.model
    if job.config.lora is not None:
        _save_adapter(model, job.output / "adapter")
        model = model.merge_and_unload()
    model.config.use_cache = True
    model.save_pretrained(job.output)
    AutoTokenizer.from_pretrained(job.policy, local_files_only=True).save_pretrained(job.output)


def _save_adapter(model: Any, folder: Path) -> None:
    """Save the adapter without the path of this machine that its configuration and model card would carry."""
    for settings in model.peft_config.values():
        settings.base_model_name_or_path = ""
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)


def assign(policy: Policy, weights: Mapping[str, Tensor]) -> None:
    """Copy trained weights, by name, into the policy."""
    trained = policy.trained()
    assert trained.keys() == weights.keys(), sorted(trained.keys() ^ weights.keys())
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(weights[name])
