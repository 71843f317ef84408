"""Liger's fused LM head for CUDA, used only after it has given our values and gradients on the GPU at hand.

Before pull request 1298 (July 2026) its backward gave all tokens the gradient of the first one, silently; our
gradients differ from response to response. So the first use compares. Not tested on a GPU yet.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn

HeadFunction = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


def fits(head: nn.Linear, rows: Tensor, temperatures: tuple[float, ...], reference: HeadFunction) -> bool:
    """Return whether Liger's kernel does this head's work.

    Args:
        head: The LM head. Partitioned weights (ZeRO-3) are not Liger's: it would hold on to the gathered copy.
        rows: Hidden rows. [M, H]
        temperatures: Liger knows temperature 1 only.
        reference: Ours, to compare with once.
    """
    if not rows.is_cuda or temperatures != (1.0,) or hasattr(head.weight, "ds_id"):
        return False
    return find_spec("liger_kernel") is not None and agrees(liger_log_probs, reference, rows.device)


def liger_log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Return log-probs of the targets by Liger's fused linear cross-entropy. [M]"""
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    loss = LigerFusedLinearCrossEntropyFunction.apply(hidden, weight, targets, bias, None, -100, 0.0, 0.0, "none")
    log_probs: Tensor = -(loss[0] if isinstance(loss, tuple) else loss)
    return log_probs


@cache
def agrees(function: HeadFunction, reference: HeadFunction, device: torch.device) -> bool:
    """Compare values and gradients of two heads on a small input whose tokens have different gradients."""
    try:
        pairs = zip(_tried(function, device), _tried(reference, device), strict=True)
        same = all(torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in pairs)
        trouble = "its gradients differ from ours"
    except Exception as error:  # an optional kernel may fail in any way; ours does the work then
        same, trouble = False, f"{type(error).__name__}: {error}"
    if not same:
        warnings.warn(f"Liger is installed and not used: {trouble}. liger-kernel >= 0.8.5 is right.", stacklevel=2)
    return same


def _tried(function: HeadFunction, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 64, generator=generator).to(device).requires_grad_() for size in (8, 256))
    targets = torch.randint(256, (8,), generator=generator).to(device)
    with torch.enable_grad():
        log_probs = function(hidden, weight, None, targets)
        (log_probs * torch.linspace(-1, 2, 8, device=device)).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return [log_probs.detach(), hidden.grad, weight.grad]
