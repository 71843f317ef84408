"""One SteerLM v2 training step, forward and backward, in four ways that give the same gradient.

    python benchmarks/train_step.py                         all sizes
    python benchmarks/train_step.py --size 192,64,8,32000   one size: P,R,N,V
    python benchmarks/train_step.py --json figures.json     also write the figures

Arms, each in a process of its own on the same weights, ids and threads:

- reference: two passes over padded rows with full logits, the first without gradient, as in NeMo-Aligner.
- one_pass:  one pass over padded rows with full logits; the loss is a soft-target cross-entropy over the group.
- selective: the same, with the LM head on the positions that predict a response token only.
- ours:      one shared-prefix row through `steerlm_core.models.scoring`.

1. All arms start, take two warm-up steps and hand in their gradient, which must equal the reference's.
2. The arms take one step each in turn, `--rounds` times, so that a busy machine slows all of them.
3. Medians, extra peak memory of a step (resident, above model and inputs), and the floor of each arm are printed.

A vocabulary of 128,000 runs the head alone: hidden states are given, hidden size 512.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steerlm_core.models.groups import TokenGroup
from steerlm_core.models.log_probs import token_log_probs
from steerlm_core.models.scoring import TokenLogProbs, batch_log_probs, choose_layout, sum_by_candidate
from steerlm_core.objective import steerlm_loss

ARMS = ("reference", "one_pass", "selective", "ours")
SIZES = ((192, 64, 8, 32000), (64, 64, 8, 32000), (256, 64, 10, 2000), (512, 256, 10, 128000))
HEAD_ONLY_FROM = 100_000  # vocabulary
PARITY = 1e-5  # relative error of the whole gradient


@dataclass(frozen=True)
class Size:
    """One group: prompt tokens, response tokens, responses, vocabulary."""

    P: int
    R: int
    N: int
    V: int

    @property
    def head_only(self) -> bool:
        """Whether the trunk is left out."""
        return self.V >= HEAD_ONLY_FROM


@dataclass(frozen=True)
class Trunk:
    """The Llama of the benchmark: 21.1M parameters at a vocabulary of 32,000."""

    hidden: int = 256
    intermediate: int = 688
    layers: int = 6
    heads: int = 4
    head_only_hidden: int = 512


class Group:
    """Ids and the numbers of one group, the same in every process."""

    def __init__(self, size: Size) -> None:
        """Draw them."""
        generator = torch.Generator().manual_seed(1)
        self.prompt = torch.randint(size.V, (size.P,), generator=generator)
        self.responses = torch.randint(size.V, (size.N, size.R), generator=generator)  # [N, R]
        self.log_q = -size.R * torch.tensor(float(size.V)).log() + torch.randn(1, size.N, generator=generator)
        self.log_ws = torch.randn(1, size.N, generator=generator).log_softmax(-1)
        self.tokens = torch.full((1, size.N), float(size.R))
        self.rows = torch.cat([self.prompt.expand(size.N, -1), self.responses[:, :-1]], 1)  # [N, P + R - 1]
        self.labels = torch.cat([torch.full((size.N, size.P - 1), -100), self.responses], 1)  # [N, P + R - 1]

    def token_group(self) -> TokenGroup:
        """Return the group as the library takes it."""
        return TokenGroup(tuple(self.prompt.tolist()), tuple(tuple(y) for y in self.responses.tolist()))

    def loss(self, log_p: Tensor) -> Tensor:
        """Return the one-pass loss of summed log-probs. [N]"""
        return steerlm_loss(log_p.view(1, -1), self.log_q, self.log_ws, self.tokens)

    def reference_loss(self, log_p: Tensor, first_pass: Tensor) -> Tensor:
        """Return the reference loss, weighted by what the first pass found. [N], [N]"""
        weights = self.log_ws.exp() - (first_pass - self.log_q).softmax(-1)  # [1, N]
        return -(weights * log_p).sum() / self.tokens.mean()


def full_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log-probs of the labels summed by row, from logits of every position. [N]"""
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
    return -losses.view_as(labels).sum(1, dtype=torch.float64)  # at -700 nats float32 is off by 6e-5


def model_step(arm: str, size: Size, trunk: Trunk) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return the model and a function that runs an arm's forward."""
    model, group = llama(size, trunk), Group(size)

    def padded() -> Tensor:
        return full_log_probs(model(input_ids=group.rows, use_cache=False).logits, group.labels)

    def reference() -> Tensor:
        with torch.no_grad():
            first_pass = padded()
        return group.reference_loss(padded(), first_pass)

    def selective() -> Tensor:
        hidden = model.model(input_ids=group.rows, use_cache=False).last_hidden_state[:, size.P - 1 :]
        return group.loss(full_log_probs(model.lm_head(hidden), group.responses))

    groups = [group.token_group()]

    def ours() -> Tensor:
        layout = choose_layout(model, "auto")
        return group.loss(sum_by_candidate(batch_log_probs(model, groups, layout=layout)).log_probs)

    arms = {"reference": reference, "one_pass": lambda: group.loss(padded()), "selective": selective, "ours": ours}
    return model, arms[arm]


def llama(size: Size, trunk: Trunk) -> Any:
    """Return the benchmark's model with fixed weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.V,
        hidden_size=trunk.hidden,
        intermediate_size=trunk.intermediate,
        num_hidden_layers=trunk.layers,
        num_attention_heads=trunk.heads,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa")


class Head(nn.Module):
    """Given hidden states and an LM head, both with gradient."""

    def __init__(self, size: Size, trunk: Trunk) -> None:
        """Draw them."""
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Parameter(torch.randn(size.N, size.P + size.R - 1, trunk.head_only_hidden))
        self.weight = nn.Parameter(torch.randn(size.V, trunk.head_only_hidden) * 0.02)


def head_step(arm: str, size: Size, trunk: Trunk) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return the head and a function that runs an arm's forward on given hidden states."""
    head, group = Head(size, trunk), Group(size)

    def padded() -> Tensor:
        return full_log_probs(F.linear(head.hidden, head.weight), group.labels)

    def reference() -> Tensor:
        with torch.no_grad():
            first_pass = padded()
        return group.reference_loss(padded(), first_pass)

    def selective() -> Tensor:
        return group.loss(full_log_probs(F.linear(head.hidden[:, size.P - 1 :], head.weight), group.responses))

    def ours() -> Tensor:
        rows = head.hidden[:, size.P - 1 :].flatten(0, 1)  # [N * R, H]
        log_probs = token_log_probs(rows, head.weight, None, group.responses.flatten())[:, 0]
        owners = torch.arange(size.N).repeat_interleave(size.R)
        return group.loss(sum_by_candidate(TokenLogProbs(log_probs, owners, (size.N,))).log_probs)

    arms = {"reference": reference, "one_pass": lambda: group.loss(padded()), "selective": selective, "ours": ours}
    return head, arms[arm]


def work(arm: str, size: Size, trunk: Trunk, threads: int, gradient: Path) -> None:
    """Be the process of one arm: a step for every line on stdin, its seconds and peak bytes on stdout."""
    torch.set_num_threads(threads)
    model, forward = (head_step if size.head_only else model_step)(arm, size, trunk)
    step(model, forward)
    model.zero_grad()
    ctypes.CDLL(None).malloc_trim(0)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    step(model, forward)
    peak = _memory("VmHWM") - before
    torch.save([parameter.grad for parameter in model.parameters()], gradient)
    print(json.dumps({"peak_bytes": peak}), flush=True)
    for _ in sys.stdin:
        cpu = time.process_time()
        seconds = step(model, forward)
        print(json.dumps({"seconds": seconds, "cpu_seconds": time.process_time() - cpu}), flush=True)


def step(model: nn.Module, forward: Callable[[], Tensor]) -> float:
    """Run forward and backward; return the seconds they took."""
    model.zero_grad()
    start = time.perf_counter()
    forward().backward()
    return time.perf_counter() - start


def _memory(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


class Worker:
    """The process of one arm, seen from outside."""

    def __init__(self, arm: str, size: Size, trunk: Trunk, threads: int, folder: Path) -> None:
        """Start it and wait until it has warmed up."""
        self.arm, self.gradient = arm, folder / f"{arm}.pt"
        task = json.dumps([arm, vars(size), vars(trunk), threads, str(self.gradient)])
        command = [sys.executable, __file__, "--worker", task]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.peak_bytes = int(self._answer()["peak_bytes"])
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def step(self) -> None:
        """Have one step made, and note how long it took."""
        assert self._process.stdin
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"arm '{self.arm}' ended with code {self._process.wait()}: too little memory?")
        answer: dict[str, float] = json.loads(line)
        return answer


def run(size: Size, trunk: Trunk, arms: tuple[str, ...], threads: int, rounds: int) -> list[Worker]:
    """Run the arms in turn and return their processes, ended, with what they measured."""
    with tempfile.TemporaryDirectory() as name:
        workers = [Worker(arm, size, trunk, threads, Path(name)) for arm in arms]
        check_parity(workers)
        for _ in range(rounds):
            for worker in workers:
                worker.step()
        for worker in workers:
            worker.close()
    return workers


def check_parity(workers: list[Worker]) -> None:
    """Stop unless all arms have the gradient of the first."""
    expected = torch.load(workers[0].gradient)
    norm = sum(float(part.double().square().sum()) for part in expected) ** 0.5
    for worker in workers[1:]:
        pairs = zip(torch.load(worker.gradient), expected, strict=True)
        error = sum(float((one.double() - other.double()).square().sum()) for one, other in pairs) ** 0.5 / norm
        print(f"  gradient of {worker.arm}: relative difference {error:.1e} from {workers[0].arm}")
        if not error < PARITY:
            raise SystemExit(f"arm '{worker.arm}' has another gradient: {error:.1e} is above {PARITY:.0e}")


def floor(arm: str, size: Size, trunk: Trunk) -> tuple[float, float, float]:
    """Return the least GFLOP of an arm: linear layers, attention, head.

    Forward plus twice that for the backward, plus another forward for the reference's first pass. Attention counts
    the pairs that the mask lets through.
    """
    passes = 4 if arm == "reference" else 3
    fed, width, fed_responses = size.P + size.R - 1, trunk.hidden, size.R - 1
    tokens = size.P + size.N * fed_responses if arm == "ours" else size.N * fed
    pairs = size.N * fed * (fed + 1) / 2
    if arm == "ours":
        own = fed_responses * (fed_responses + 1) / 2
        pairs = size.P * (size.P + 1) / 2 + size.N * (own + fed_responses * size.P)
    rows = size.N * (fed if arm in ("reference", "one_pass") else size.R)
    weights = trunk.layers * (4 * width**2 + 3 * width * trunk.intermediate)
    linear, attention = 2 * tokens * weights, 4 * pairs * width * trunk.layers
    head = 2 * rows * size.V * (trunk.head_only_hidden if size.head_only else width)
    if size.head_only:
        linear = attention = 0
    return passes * linear / 1e9, passes * attention / 1e9, passes * head / 1e9


def report(size: Size, trunk: Trunk, workers: list[Worker]) -> list[dict[str, object]]:
    """Print a table and return the figures."""
    figures: list[dict[str, object]] = []
    last = workers[-1]
    print(
        "  arm        seconds  CPU-s   x ours: median, pairs, CPU   peak MB  GFLOP: linear + attention + head   GFLOP/s"
    )
    for worker in workers:
        seconds, cpu = statistics.median(worker.seconds), statistics.median(worker.cpu_seconds)
        pairs = statistics.median(one / other for one, other in zip(worker.seconds, last.seconds, strict=True))
        ratios = (seconds / statistics.median(last.seconds), pairs, cpu / statistics.median(last.cpu_seconds))
        parts = floor(worker.arm, size, trunk)
        print(
            f"  {worker.arm:10} {seconds:7.3f} {cpu:6.3f}          "
            + "".join(f"{ratio:7.2f}" for ratio in ratios)
            + f"  {worker.peak_bytes / 1e6:8.0f}   {sum(parts):5.0f}: "
            + " + ".join(f"{part:.0f}" for part in parts)
            + f"   {sum(parts) / cpu:.0f}"
        )
        arm_size = [size.P, size.R, size.N, size.V]
        figures.append({"size": arm_size, "arm": worker.arm, "seconds": seconds, "peak_bytes": worker.peak_bytes})
    return figures


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", help="P,R,N,V; default: all four")
    parser.add_argument("--arms", default=",".join(ARMS), help="the last is what the others are compared with")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of every arm (at least 5 for a figure)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        arm, size, trunk, threads, gradient = json.loads(options.worker)
        return work(arm, Size(**size), Trunk(**trunk), threads, Path(gradient))
    sizes = [tuple(int(part) for part in options.size.split(","))] if options.size else list(SIZES)
    figures: list[dict[str, object]] = []
    for size in (Size(*numbers) for numbers in sizes):
        print(f"P={size.P} R={size.R} N={size.N} V={size.V}, load {os.getloadavg()[0]:.1f}", flush=True)
        workers = run(size, Trunk(), tuple(options.arms.split(",")), options.threads, options.rounds)
        figures += report(size, Trunk(), workers)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
