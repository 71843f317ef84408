"""Fetch one large object by ranges: in parallel, into few buffers that are used again, hashed on the way.

    fetch ──► buffer ──► its place in the file     by the thread that fetched it, in any order
                    └──► sha256                    in the order of the object

The bytes are touched while they are in memory anyway: hashing costs no second reading. New buffers for every range
would cost as much as the hash does, in page faults.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from steerlm_core.store.moved import Count, uncounted

_RANGE, _AHEAD = 16 << 20, 8  # bytes of a range; ranges in memory at once


def download(fill: Callable[[int, memoryview], None], path: Path, size: int, count: Count = uncounted) -> str:
    """Write an object to a file, which appears when it is whole; return its sha256.

    Args:
        fill: Fills a buffer with the object's bytes from an offset on; called from several threads.
        path: The file.
        size: Bytes of the object.
        count: Hears of the bytes that are there.

    Raises:
        Exception: What `fill` raised; an unfinished file is left under another name.
    """
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        digest = _in_order(fill, file.fileno(), size, count)
    unfinished.rename(path)
    return digest


def _in_order(fill: Callable[[int, memoryview], None], file: int, size: int, count: Count) -> str:
    state, waiting = hashlib.sha256(), deque[Future[memoryview]]()
    starts = range(0, size, _RANGE)
    free = [bytearray(min(_RANGE, size)) for _ in starts[:_AHEAD]]

    def fetch(start: int, buffer: bytearray) -> memoryview:
        data = memoryview(buffer)[: size - start]
        fill(start, data)
        _write(file, data, start)
        return data

    def hash_oldest() -> bytearray:
        """Wait for the oldest range and hash it; its buffer is free then."""
        data = waiting.popleft().result()
        state.update(data)
        count(len(data))
        buffer = data.obj
        assert isinstance(buffer, bytearray)
        return buffer

    with ThreadPoolExecutor(_AHEAD) as pool:
        for start in starts:
            buffer = free.pop() if free else hash_oldest()
            waiting.append(pool.submit(fetch, start, buffer))
        while waiting:
            hash_oldest()
    return state.hexdigest()


def _write(file: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written
