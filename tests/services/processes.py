"""What every service of the tests needs of this machine: free ports."""

from __future__ import annotations

import os
import socket


def free_ports(address: str, count: int) -> list[int]:
    """Ports that are free now, and whose gRPC twin 10,000 above is free too; no other worker of this run gets them."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as twin:
            one.bind((address, 0))
            drawn = one.getsockname()[1] % (10_000 // workers) * workers + number
            port = drawn + 20_000  # so that no port is the twin of another
        with socket.socket() as one, socket.socket() as twin:
            try:
                one.bind((address, port))
                twin.bind((address, port + 10_000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
