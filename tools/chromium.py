"""A page in headless Chromium: what it says on the console, what it asks the network for, and how it looks.

Talks the DevTools protocol over a WebSocket. Used by the tests of the report, and to make the pictures of the
documentation:

    python -m tools.chromium PAGE.html SECTION OUT.png [--dark] [--width 900]
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run --disable-dev-shm-usage --hide-scrollbars --remote-debugging-port=0 "
    "--remote-allow-origins=*"
).split()
_START_SECONDS = 60.0


class Page:
    """One page, through the DevTools protocol."""

    def __init__(self, address: str) -> None:
        """Connect to a page's WebSocket."""
        self._socket = websocket.create_connection(address, timeout=60)
        self._number = 0
        self.problems: list[str] = []
        """Console messages, exceptions and log entries at the level of a warning or worse."""
        self.requests: list[str] = []
        """Addresses that the page asked for."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result; what the page says meanwhile is noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return dict(message["result"])
            self._note(message)

    def open(self, page: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        while self.evaluate("document.readyState") != "complete" or self.evaluate("location.protocol") != "file:":
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def view(self, width: int, dark: bool = False, height: int = 900, scale: float = 1.0) -> None:
        """Set the window's width, in CSS pixels, and the colour scheme that the user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, selector: str = "body", tallest: int = 8000) -> bytes:
        """Return a PNG of an element."""
        box = self.evaluate(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}; })()"
        )
        clip = {**box, "height": min(box["height"], tallest), "scale": 1}
        return base64.b64decode(
            self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        )

    def on_paper(self) -> bytes:
        """Return the page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])

    def _note(self, message: dict[str, Any]) -> None:
        method, found = message.get("method"), message.get("params", {})
        if method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.problems.append(str([each.get("value") for each in found["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(found["exceptionDetails"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])


@contextmanager
def browser() -> Iterator[Page]:
    """Start Chromium with a profile of its own and hand out an empty page.

    Raises:
        FileNotFoundError: Chromium is not installed.
    """
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("chromium is not installed; `apt-get install chromium`, or what your system calls it.")
    with tempfile.TemporaryDirectory(prefix="steerlm-chromium-", ignore_cleanup_errors=True) as profile:
        command = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Page(_address(Path(profile), process))
        finally:
            process.terminate()
            process.wait(30)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait for the port that Chromium writes into its profile, and return the first page's WebSocket."""
    from urllib.request import urlopen

    port, deadline = profile / "DevToolsActivePort", time.monotonic() + _START_SECONDS
    while not (port.exists() and port.read_text().count("\n")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"chromium did not start (exit code {process.poll()})")
        time.sleep(0.05)
    with urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list", timeout=10) as answer:
        pages = [each for each in json.load(answer) if each["type"] == "page"]
    return str(pages[0]["webSocketDebuggerUrl"])


def main() -> None:
    """Save a picture of a part of a page."""
    parser = argparse.ArgumentParser(description="A picture of a part of a page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("selector", help="a CSS selector, such as '#distance'")
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1000)
    arguments = parser.parse_args()
    with browser() as page:
        page.view(arguments.width, arguments.dark)
        page.open(arguments.page)
        arguments.out.write_bytes(page.picture(arguments.selector))


if __name__ == "__main__":
    main()
