"""The counting service of a mesh file: for ``ratelimit``, or for a global limit in its configuration."""

from __future__ import annotations

from collections.abc import Iterable

from retia.api.schema import Document
from retia.cli import processes
from retia.cli.up.meshfile import MeshFile, RateLimit
from retia.config.parse import SourceText, parse
from retia.model.limit import PORT, SERVICE

GRACE_S = 5.0


def wanted(mesh: MeshFile, documents: Iterable[Document]) -> RateLimit | None:
    """Its settings; ``None``: nobody needs it, or the mesh file has a service of that name itself."""
    if mesh.ratelimit is not None:
        return mesh.ratelimit
    if SERVICE in {*mesh.services, *mesh.gateways}:
        return None
    return RateLimit() if any(map(_has_global_limit, documents)) else None


def command(settings: RateLimit, redis: str) -> tuple[str, ...]:
    """The program with its arguments; ``redis`` with its variables filled in."""
    arguments = ["--listen", f"127.0.0.1:${{port:{PORT}}}"]
    if redis:
        arguments += ["--redis", redis]
    if settings.metrics_port:
        arguments += ["--metrics-port", str(settings.metrics_port)]
    return tuple(processes.argv(processes.RATELIMIT, arguments))


def _has_global_limit(document: Document) -> bool:
    """What can't be read is none; whoever applies it says so."""
    if "RateLimitPolicy" not in document.text:
        return False
    found = parse((SourceText(document.path, document.text),)).objects
    policies = (obj.spec for obj in found if obj.ref.kind == "RateLimitPolicy")
    return any(str(limit.scope) == "Global" for policy in policies for limit in policy.limits)
