"""Who does a step: a lease in the run root, by conditional puts alone.

A holder writes its lease again every quarter of its time. Who waits takes it over once it has seen
the lease unchanged for the whole of that time on its own clock, so clocks need not agree; or at
once, where the lease was given back or its process has died on this machine. A holder whose renewal
fails, or comes too late, has lost. Before a manifest is committed the lease is renewed once more,
and the commit itself is create-only: a runner that slept through its lease can commit nothing.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from steerlm_core import layout
from steerlm_core.errors import LeaseLostError, StoreError
from steerlm_core.periodic import Periodic

_POLL_SECONDS = 1.0
_RENEWALS = 4  # in the time of a lease


class Versioned(Protocol):
    """What a lease needs of a store."""

    @property
    def root(self) -> str:
        """The root as the user gave it."""

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """Content and version."""

    def create(self, key: str, data: bytes) -> bool:
        """Write unless one exists."""

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace that version."""


@dataclass(frozen=True)
class Claim:
    """What a lease object says.

    Attributes:
        owner: For people: user, host and process; empty once given back.
        place: Host, boot and process namespace: processes of one place can be looked up there.
        process: Number and start of the process.
        token: Of this holding; no two have the same.
        renewed: Times that it was renewed.
        seconds: Without a renewal for so long, others may take it.
        since: Seconds since the epoch when it was taken; for people.
    """

    owner: str
    place: str
    process: str
    token: str
    renewed: int
    seconds: float
    since: float

    def to_bytes(self) -> bytes:
        """Return the object."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Claim | None:
        """Read the object; None where it is no lease of this version."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    @property
    def is_dead(self) -> bool:
        """Whether it was given back, or its process is known to have ended."""
        if not self.owner:
            return True
        return has_died(self.place, self.process)


class Lease:
    """A lease that this process holds."""

    def __init__(self, store: Versioned, key: str, claim: Claim, version: str) -> None:
        """Start to renew it."""
        self._store, self._key, self._claim, self._version = store, key, claim, version
        self._lost: str | None = None
        self._lock = threading.Lock()
        self._renewals = Periodic(self._keep, claim.seconds / _RENEWALS, "lease").start()

    def check(self) -> None:
        """Renew the lease now: what is committed next is this runner's to commit.

        Raises:
            LeaseLostError: Another runner has taken over.
        """
        self._renew()
        if self._lost is not None:
            raise LeaseLostError(
                f"{self._store.root}/{self._key}: this runner was not heard of for {self._claim.seconds:g} s, and "
                f"{self._lost} has taken over. Nothing of this runner is committed; the other goes on with the run."
            )

    def release(self) -> None:
        """Give the lease back; failing that, it runs out."""
        self._renewals.close()
        with suppress(StoreError), self._lock:
            if self._lost is None:
                self._store.swap(self._key, replace(self._claim, owner="").to_bytes(), self._version)

    def _keep(self) -> None:
        with suppress(StoreError):  # the next may succeed; `check` is what counts
            self._renew()

    def _renew(self) -> None:
        with self._lock:
            if self._lost is not None:
                return
            claim = replace(self._claim, renewed=self._claim.renewed + 1)
            kept = self._store.swap(self._key, claim.to_bytes(), self._version)
            found = self._store.read_versioned(self._key)
            now = Claim.from_bytes(found[0]) if found else None
            if not kept or found is None or now != claim:
                self._lost = now.owner if now and now.owner else "another runner"
                return
            self._claim, self._version = claim, found[1]


@contextmanager
def hold(store: Versioned, name: str, seconds: float, waiting: Callable[[str], None]) -> Iterator[Lease]:
    """Take the lease of that name, waiting for it if need be, and give it back at the end.

    Args:
        store: The run root.
        name: What the lease is for, such as `000-train`.
        seconds: A holder that is silent for so long has lost it.
        waiting: Called once with the words for whom this runner waits.
    """
    lease = _take(store, layout.lease(name), seconds, waiting)
    try:
        yield lease
    finally:
        lease.release()


def this_process() -> dict[str, str]:
    """Return what `has_died` tells this process by."""
    return {"place": _place(), "process": _process(os.getpid())}


def has_died(place: str, process: str) -> bool:
    """Whether a process is known to have ended: it was of this place, and is there no more."""
    number, _, start = process.partition("/")
    return place == _place() and bool(start) and process != _process(int(number))


def _take(store: Versioned, key: str, seconds: float, waiting: Callable[[str], None]) -> Lease:
    seen, since, told = "", time.monotonic(), False
    while True:
        mine = _new_claim(seconds)
        found = store.read_versioned(key)
        if found is None:
            taken = store.create(key, mine.to_bytes())
        else:
            data, version = found
            claim = Claim.from_bytes(data)
            if version != seen:
                seen, since = version, time.monotonic()
            silent = time.monotonic() - since
            free = claim is None or claim.is_dead or silent > claim.seconds
            if not free and claim is not None and not told:
                waiting(f"waiting for {claim.owner}, who is at it since {_clock(claim.since)}")
                told = True
            taken = free and store.swap(key, mine.to_bytes(), version)
        if taken:
            now = store.read_versioned(key)
            if now is not None and now[0] == mine.to_bytes():
                return Lease(store, key, mine, now[1])
        else:
            time.sleep(min(_POLL_SECONDS, seconds / _RENEWALS))


def _new_claim(seconds: float) -> Claim:
    return Claim(
        owner=_owner(), **this_process(), token=uuid.uuid4().hex, renewed=0, seconds=seconds, since=time.time()
    )


def _owner() -> str:
    if pod := os.environ.get("KUBERNETES_SERVICE_HOST") and socket.gethostname():
        return f"pod {pod}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def _place() -> str:
    """Names the host, its start and its process namespace; a bare host name where that is all there is."""
    pieces = [socket.gethostname()]
    with suppress(OSError):
        pieces.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        pieces.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(pieces)


def _process(number: int) -> str:
    """A process by number and start time, as numbers are used again; empty where it has ended."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{number}/" if number == os.getpid() else ""
    return f"{number}/{fields[19]}" if fields[0] != "Z" else ""


def _clock(since: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(since))
