"""The library in your own trainer: weights, loss, distance and decision on tensors, without stores, models or steps.

    python examples/own_loop.py

Every prompt here has 24 possible responses, and the policy is a table of logits over them. Replace the table by your
model, the three log-probs by your scores, and the optimizer by your trainer; what is imported below stays as it is.
"""

from dataclasses import replace

import torch

from steerlm_core.config import ConvergenceConfig
from steerlm_core.convergence import Evaluation, decide
from steerlm_core.objective import (
    baseline_log_weights,
    distance,
    effective_sample_size,
    steerlm_loss,
    target_log_weights,
)

G, N, RESPONSES, STEPS = 96, 8, 24, 20
torch.manual_seed(1)
log_prior = torch.randn(G, RESPONSES).log_softmax(-1)  # log P(y|x)
log_attr = torch.randn(G, RESPONSES).mul(1.5).log_softmax(-1)  # log P(a|x,y) of the target asked for
policy = log_prior.clone().requires_grad_()  # policy 0: the prior itself
tokens, names = torch.full((G, N), 10), [f"prompt-{g}" for g in range(G)]


def sample(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw N responses a prompt; return them, their log_q and the target weights log_ws, all [G, N]."""
    drawn = torch.multinomial(logits.softmax(-1), N, replacement=True)
    log_q = logits.log_softmax(-1).gather(1, drawn)
    return drawn, log_q, target_log_weights(log_attr.gather(1, drawn), log_prior.gather(1, drawn), log_q)


def distances(drawn: torch.Tensor, log_q: torch.Tensor, log_ws: torch.Tensor) -> dict[str, float]:
    """Return KL(ws || b) of the policy as it is now, by prompt."""
    log_p = policy.log_softmax(-1).gather(1, drawn)  # [G, N]
    return dict(zip(names, distance(log_ws, baseline_log_weights(log_p, log_q)).tolist(), strict=True))


evaluations: list[Evaluation] = []
while True:
    with torch.no_grad():
        drawn, log_q, log_ws = sample(policy)  # to train on
        held_out = sample(policy)  # to measure on; in a real run, of other prompts
        before = distances(*held_out)
    optimizer = torch.optim.Adam([policy], lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        steerlm_loss(policy.log_softmax(-1).gather(1, drawn), log_q, log_ws, tokens).mul(G).backward()
        optimizer.step()
    with torch.no_grad():
        after = distances(*held_out)
    ess = dict(zip(names, effective_sample_size(held_out[2]).tolist(), strict=True))
    now = Evaluation(len(evaluations), before, after, ess, truncated_before={}, truncated_after={}, n_candidates=N)
    decision = decide([*evaluations, now], ConvergenceConfig(tolerance=0.1), max_iterations=12)
    evaluations.append(replace(now, accepted=decision.accepted))
    print(f"iteration {now.iteration}   {sum(before.values()) / G:.3f} → {sum(after.values()) / G:.3f}")
    if decision.stop:
        break
print(decision.reason)
