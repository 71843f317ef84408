"""What the launcher must be allowed to do, and what it would like to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import tenacity

from steerlm_core.kube.api.client import KubeApi, patiently
from steerlm_core.kube.api.paths import JOB_GROUP
from steerlm_core.retry import retry_for

_PATIENCE_SECONDS = 60.0
_DENIED_SECONDS = 4.0
_PAUSES = tenacity.wait_chain(tenacity.wait_fixed(1.0), tenacity.wait_fixed(3.0))


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

    def ask() -> None:
        lacking[:] = [one for one in lacking if not patiently(partial(one.held, api), _PATIENCE_SECONDS)]
        if lacking:
            raise _LackingError

    with suppress(_LackingError):
        retry_for(_DENIED_SECONDS, ask, lambda error, _: isinstance(error, _LackingError), _PAUSES)
    return lacking


class _LackingError(Exception):
    pass
