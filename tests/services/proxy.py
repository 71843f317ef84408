"""A TCP proxy that a test can close and open again: a server that is gone for a while."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Passes connections on to a server while it is open; closing it breaks those that there are."""

    def __init__(self, endpoint: str, address: str) -> None:
        """Open it on a free port.

        Args:
            endpoint: URL of the server.
            address: Where the proxy listens.
        """
        target = urlsplit(endpoint)
        assert target.hostname
        self._target = (target.hostname, target.port or 80)
        self._listener = socket.create_server((address, 0))
        self._place = self._listener.getsockname()
        self.endpoint = f"http://{address}:{self._place[1]}"
        self._open: set[socket.socket] = set()
        self._serve()

    def close(self) -> None:
        """Refuse and break every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Serve again, on the same port."""
        self._listener = socket.create_server(self._place)
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._open |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open -= {source}
        source.close()


@contextmanager
def proxy(endpoint: str, address: str) -> Iterator[Proxy]:
    """Open a proxy before a server; closed at the end."""
    found = Proxy(endpoint, address)
    try:
        yield found
    finally:
        with suppress(OSError):
            found.close()
