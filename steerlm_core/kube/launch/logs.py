"""Logs of pods: the master's followed into the launcher's own, those of failed pods kept in the run root."""

from __future__ import annotations

import logging
import random
import re
import threading
from collections import deque
from collections.abc import Iterable, Mapping

from steerlm_core import layout
from steerlm_core.kube.api import paths
from steerlm_core.kube.api.client import ClusterError, KubeApi, KubeObject, Query
from steerlm_core.kube.job.pod_template import CONTAINER
from steerlm_core.kube.job.state import is_on_lost_node, name_of
from steerlm_core.steps.context import Documents

_log = logging.getLogger("steerlm.kube.master")

_KEPT_LINES = 20_000
_KEPT_BYTES = 16 << 20
_SILENT_SECONDS = 300.0
_PAUSE = 1.0
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class MasterLog:
    """Follows the log of one pod from its first line on, however often the connection breaks off.

    Attributes:
        lines: The last lines seen.
    """

    def __init__(self, api: KubeApi, pod: str) -> None:
        """Start following."""
        self.pod = pod
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._api, self._stop, self._last = api, threading.Event(), ""
        self._aside = ""
        threading.Thread(target=self._run, name=f"log {pod}", daemon=True).start()

    def close(self) -> None:
        """Follow no more."""
        self._stop.set()

    def text(self) -> str:
        """What has been seen of the log."""
        return "\n".join(self.lines)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except ClusterError as error:
                if error.status == 404:
                    return  # the pod is gone
            self._stop.wait(_PAUSE * random.uniform(0.5, 1.5))

    def _follow(self) -> None:
        """Read on from the last line; the server repeats those of its second."""
        query: dict[str, str | int | bool] = {"container": CONTAINER, "follow": True, "timestamps": True}
        if self._last:
            query["sinceTime"] = self._last
        for line in self._api.lines(f"{paths.pods(self._api.namespace)}/{self.pod}/log", query, _SILENT_SECONDS):
            if self._stop.is_set():
                return
            self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        """Note a line that is new. One without a time is the kubelet's own, and comes again at every connection."""
        at, _, words = line.partition(" ")
        if _TIMESTAMP.fullmatch(at) is None:
            if line != self._aside:
                self._note(line)
            self._aside = line
        elif at > self._last:
            self._note(words)
            self._last = at

    def _note(self, words: str) -> None:
        self.lines.append(words)
        _log.info("%s", words)


def read_logs(api: KubeApi, pods: Iterable[KubeObject], master: MasterLog | None) -> dict[str, str]:
    """Return the logs of pods by name, without those that cannot be had; a lost node is not asked."""
    found = {name_of(pod): "" if is_on_lost_node(pod) else read_log(api, name_of(pod)) for pod in pods}
    if master and not found.get(master.pod):
        found[master.pod] = master.text()
    return {pod: text for pod, text in found.items() if text}


def keep_logs(store: Documents, job: str, logs: Mapping[str, str]) -> None:
    """Put logs into the run root."""
    for pod, text in logs.items():
        store.put(layout.job_log(job, pod), text.encode())


def read_log(api: KubeApi, pod: str) -> str:
    """Return the log of a pod's container; empty where it cannot be had."""
    query: Query = {"container": CONTAINER, "limitBytes": _KEPT_BYTES}
    try:
        lines = api.lines(f"{paths.pods(api.namespace)}/{pod}/log", query, 20.0)
        return "\n".join(line.decode(errors="replace") for line in lines)
    except ClusterError:
        return ""
