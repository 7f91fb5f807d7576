"""``TCPRoute`` and ``TLSRoute``: connections as they are, TLS chosen by server name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.gateway_api.types import (
    BackendRef,
    GatewayDefaultScope,
    Hostname,
    NotEmpty,
    ParentReference,
    SectionName,
    count_problems,
    is_ip,
    parent_problems,
)


class StreamRule(Model):
    name: SectionName | None = None
    backend_refs: Annotated[tuple[BackendRef, ...], NotEmpty]

    def problems(self) -> Iterator[Problem]:
        yield from count_problems("backendRefs", self.backend_refs, 16)


def _one_rule(rules: tuple[StreamRule, ...]) -> Iterator[Problem]:
    """Version v1 allows one rule; v1alpha2 allowed more, of which the first took all connections."""
    if len(rules) > 1:
        yield Problem(("rules", 1), "can never hold: the first rule takes every connection", Code.BAD_VALUE)


class TCPRoute(Model):
    """Where connections go."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: GatewayDefaultScope | None = None
    rules: Annotated[tuple[StreamRule, ...], NotEmpty]

    def problems(self) -> Iterator[Problem]:
        yield from parent_problems(self.parent_refs)
        yield from _one_rule(self.rules)


class TLSRoute(Model):
    """Where TLS connections go, by the server name in their greeting."""

    parent_refs: tuple[ParentReference, ...] = ()
    use_default_gateways: GatewayDefaultScope | None = None
    hostnames: tuple[Hostname, ...] = ()
    """Server names. v1 demands one; v1alpha2 took none as those of the listener."""
    rules: Annotated[tuple[StreamRule, ...], NotEmpty]

    def problems(self) -> Iterator[Problem]:
        yield from parent_problems(self.parent_refs)
        yield from count_problems("hostnames", self.hostnames, 1024)
        yield from _one_rule(self.rules)
        for index, host in enumerate(self.hostnames):
            if is_ip(host):
                yield Problem(("hostnames", index), f"is {host}; it must not be an address", Code.BAD_VALUE)
