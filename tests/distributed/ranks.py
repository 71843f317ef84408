"""Ranks forked from a process that has imported everything: a run costs a second instead of ten."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Mapping

from steerlm_core.training.job import TrainingStoppedError, TrainJob

_AGENT_SECONDS = 30.0  # torchrun sends SIGTERM to survivors, and SIGKILL half a minute later
STOPPED = 3  # exit code of a rank that was asked to stop


def import_everything() -> None:
    """Import what ranks need, so that they inherit it."""
    import deepspeed  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import steerlm_core.training.run  # noqa: F401


def fork(job: TrainJob, world: int, stop_at: int = 0) -> list[int]:
    """Start ranks and return their process ids; rank 0 gets SIGTERM after step `stop_at`, if any."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            os._exit(_rank(job, rank, world, port, stop_at))
        ranks.append(child)
    return ranks


def _rank(job: TrainJob, rank: int, world: int, port: int, stop_at: int) -> int:
    from steerlm_core.training import deepspeed_engine
    from steerlm_core.training.run import train

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    deepspeed_engine._ALWAYS_WHOLE = 0

    def report(step: int, steps: int, numbers: Mapping[str, float]) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(job, report=report)
    except TrainingStoppedError:
        return STOPPED
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def reap(ranks: list[int], alone: float) -> list[int]:
    """Wait until every rank has ended, as torchrun does: what is left after a while gets SIGTERM."""
    terminate, deadline = time.monotonic() + alone, time.monotonic() + alone + _AGENT_SECONDS
    codes: dict[int, int] = {}
    while len(codes) < len(ranks):
        for rank in set(ranks) - codes.keys():
            found, status = os.waitpid(rank, os.WNOHANG)
            if found:
                codes[rank] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > terminate:
                os.kill(rank, signal.SIGTERM)
        if time.monotonic() > deadline:
            for rank in set(ranks) - codes.keys():
                os.kill(rank, signal.SIGKILL)
            raise AssertionError("a rank hangs after its peer was killed, and SIGTERM does not end it")
        time.sleep(0.01)
    return list(codes.values())
