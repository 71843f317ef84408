"""What every service of the tests needs of this machine: free ports, and an end that comes with that of the tests."""

from __future__ import annotations

import ctypes
import signal
import socket


def free_ports(address: str, count: int) -> list[int]:
    """Ports that are free now, and whose gRPC twin 10,000 above is free too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as twin:
            one.bind((address, 0))
            port = one.getsockname()[1] % 10_000 + 20_000  # so that no port is the twin of another
        with socket.socket() as one, socket.socket() as twin:
            try:
                one.bind((address, port))
                twin.bind((address, port + 10_000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def end_with_parent() -> None:
    """Have this process end when the one that started it does; for `preexec_fn`."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
