"""The fused head: used only where it agrees."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from steerlm_core.models import liger_head, log_probs
from tests.models.small import (
    naive,
)


def one_gradient_for_all_tokens(hidden, weight, bias, targets):
    """Right values, and the gradient that Liger had before its pull request 1298."""
    right = naive(hidden, weight, bias, targets, (1.0,))[:, 0]
    wrong = right * 0.0 + right.detach()
    return wrong + (right - right.detach()).sum() / len(right)


def test_a_fused_kernel_is_used_only_where_it_agrees():
    cpu = torch.device("cpu")
    assert liger_head.agrees(lambda *head: naive(*head, (1.0,))[:, 0], log_probs._plain_log_probs, cpu)
    with pytest.warns(UserWarning, match="not used: its gradients differ"):
        assert not liger_head.agrees(one_gradient_for_all_tokens, log_probs._plain_log_probs, cpu)
    with pytest.warns(UserWarning, match="not used: ZeroDivisionError"):
        assert not liger_head.agrees(lambda *_: 1 / 0, log_probs._plain_log_probs, cpu)
    assert not liger_head.fits(nn.Linear(4, 4), torch.zeros(1, 4), (1.0,), log_probs._plain_log_probs)
