"""What ``retia check`` looks at, one module for a category.

A category is a function from :class:`Scene` to results, in the order in which they are shown. It never
raises for what it finds: a mesh in any state, or none at all, gives results.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.local import AgentInfo
    from retia.api.schema import HostInfo, ProxyInfo, StatusInfo


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Worth knowing; does not fail the check."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Cannot be looked at now."""


@dataclass(frozen=True, slots=True)
class Result:
    category: str
    name: str
    verdict: Verdict
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that was fetched before the first verdict, so that categories only judge."""

    session: Session
    now: float
    status: StatusInfo | None = None
    controller_error: str = ""
    """Why ``status`` is absent; empty with no status: none is running."""
    hosts: tuple[HostInfo, ...] = ()
    proxies: tuple[ProxyInfo, ...] = ()
    agent: AgentInfo | None = None
    agent_error: str = ""
