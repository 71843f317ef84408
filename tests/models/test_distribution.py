"""The sampling distribution."""

from __future__ import annotations

import torch

from steerlm_core.models.distribution import filtered_log_probs


def test_filters_keep_the_likeliest_and_renormalise():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    cases = [
        ((1.0, 2, 1.0), [0.625, 0.375, 0, 0]),
        ((1.0, 0, 0.4), [1, 0, 0, 0]),
        ((1.0, 0, 0.6), [0.625, 0.375, 0, 0]),
    ]
    cases += [((1.0, 3, 0.53), [0.625, 0.375, 0, 0]), ((1.0, 0, 1.0), [0.5, 0.3, 0.15, 0.05])]
    for options, expected in cases:
        torch.testing.assert_close(filtered_log_probs(logits, *options).exp(), torch.tensor([expected]).float())
    tempered = torch.tensor([[0.25, 0.09, 0.0225, 0.0025]])
    torch.testing.assert_close(filtered_log_probs(logits, 0.5).exp(), tempered / tempered.sum())
