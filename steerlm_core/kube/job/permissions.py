"""What the launcher must be allowed to do, and what it would like to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from steerlm_core.kube.api.client import KubeApi, patiently
from steerlm_core.kube.api.paths import JOB_GROUP

_PATIENCE_SECONDS = 60.0
_ASK_AGAIN = (0.0, 1.0, 3.0)


@dataclass(frozen=True)
class Permission:
    """A verb on a resource of a namespace.

    Attributes:
        verb: As in a Role.
        resource: As in a Role.
        group: API group; empty: core.
        subresource: Such as `log`.
    """

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""

    @property
    def role_resource(self) -> str:
        """Resource and subresource, as in a Role."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def __str__(self) -> str:
        """In words."""
        return f"{self.verb} {self.role_resource}"

    def held(self, api: KubeApi) -> bool:
        """Whether we hold it."""
        return api.can_i(self.verb, self.resource, self.group, self.subresource)


NEEDED = (
    *(Permission(verb, "pytorchjobs", JOB_GROUP) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(Permission(verb, "pods") for verb in ("get", "list", "watch")),
)
WANTED = (
    Permission("get", "pods", subresource="log"),  # without: no logs in messages, nor kept
    Permission("list", "events"),  # without: a job whose pods are refused is named, its cause is not
)
# In a pipeline: without, a job is not deleted as soon as its run is terminated.
OF_WORKFLOWS = tuple(Permission(verb, "workflows", "argoproj.io") for verb in ("get", "list", "watch"))


def missing_permissions(api: KubeApi, among: tuple[Permission, ...]) -> list[Permission]:
    """Return those that we do not hold; asked again, as a server that has just started knows none."""
    lacking = list(among)
    for wait in _ASK_AGAIN:
        time.sleep(wait)
        lacking = [one for one in lacking if not patiently(partial(one.held, api), _PATIENCE_SECONDS)]
        if not lacking:
            break
    return lacking
