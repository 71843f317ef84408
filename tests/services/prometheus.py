"""A real Prometheus and a real Pushgateway for tests, on free ports of this machine, gone with their test."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from steerlm_core.processes import end_with_parent
from tests.services.processes import free_ports
from tests.waiting import until

_START_SECONDS = 60.0


@dataclass(frozen=True)
class Monitoring:
    """A Prometheus that scrapes `port` every other second, and a Pushgateway that it scrapes too."""

    prometheus: str
    gateway: str
    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        with urlopen(f"{self.prometheus}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
            return list(json.load(answer)["data"]["result"])

    def value(self, expression: str) -> float | None:
        """Return the value of the only sample of a query; None where there is none."""
        found = self.query(expression)
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else None


@contextmanager
def monitoring(folder: Path) -> Iterator[Monitoring]:
    """Start both; stop them at the end."""
    scraped, prometheus, gateway = free_ports("127.0.0.1", 3)
    jobs = [
        {"job_name": "steerlm", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]},
        {
            "job_name": "pushgateway",
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{gateway}"]}],
        },
    ]
    config = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": jobs}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    subprocess.run([tool("promtool"), "check", "config", folder / "prometheus.yaml"], check=True, capture_output=True)
    commands = [
        [tool("prometheus"), f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{prometheus}"],
        [tool("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{gateway}",
         f"--persistence.file={folder / 'pushed'}"],  # Debian's keeps one for the whole machine
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        started = [subprocess.Popen(each, stdout=log, stderr=log, preexec_fn=end_with_parent) for each in commands]
    try:
        for port in (prometheus, gateway):
            ready = f"http://127.0.0.1:{port}/-/ready"
            until(ready, lambda ready=ready: _answers(ready), _START_SECONDS)
        yield Monitoring(f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{gateway}", scraped)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


def tool(name: str) -> str:
    """Return the path of a program.

    Raises:
        FileNotFoundError: It is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; `.ci/packages` installs it on Debian.")
    return found


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
