"""RateLimitPolicy objects as limits of a place. All policies for one place hold together."""

from __future__ import annotations

from collections.abc import Iterable

from retia.config.schema.rate_limit_policy import (
    KeyType,
    RateLimit,
    RateLimitPolicy,
    Scope,
    Unavailable,
)
from retia.config.schema.request_match import (
    PathMatchType,
    RequestCondition,
    SourceMatch,
    ValueMatchType,
)
from retia.model.ids import MESH_NAMESPACE
from retia.model.limit import SERVICE
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.attachment import at_gateway, at_port, at_rule
from retia.policy.ratelimit.forms import (
    Condition,
    ConnectionLimit,
    Key,
    KeyKind,
    Limit,
    Limits,
    Test,
    TestKind,
    Throttle,
)
from retia.policy.registry import mesh

INDEX = "rate-limits"

PATHS = {
    PathMatchType.EXACT: TestKind.EXACT,
    PathMatchType.PATH_PREFIX: TestKind.SEGMENTS,
    PathMatchType.REGULAR_EXPRESSION: TestKind.REGEX,
}
VALUES = {
    ValueMatchType.EXACT: TestKind.EXACT,
    ValueMatchType.PREFIX: TestKind.PREFIX,
    ValueMatchType.REGULAR_EXPRESSION: TestKind.REGEX,
    ValueMatchType.PRESENT: TestKind.PRESENT,
}
_KEYS = {
    KeyType.HEADER: KeyKind.HEADER,
    KeyType.PATH: KeyKind.PATH,
    KeyType.SOURCE_IDENTITY: KeyKind.IDENTITY,
    KeyType.REMOTE_ADDRESS: KeyKind.ADDRESS,
}


def port_limits(view: View, number: int) -> Limits:
    """The limits of one port of this proxy's workload. The counting service has none: it would ask itself."""
    workload = view.fact("workload", view.proxy("workload") or "")
    if workload is not None and (workload.namespace, workload.service) == (MESH_NAMESPACE, SERVICE):
        return Limits()
    return _limits(view, at_port(view, INDEX, number))


def gateway_limits(view: View, _key: str = "") -> Limits:
    """The limits of all requests at this gateway."""
    return _limits(view, at_gateway(view, INDEX))


def rule_limits(view: View, key: tuple[ObjectRef, str]) -> Limits:
    """The limits of requests that one rule (by its name, perhaps empty) of a route takes."""
    return _limits(view, at_rule(view, INDEX, *key))


def _limits(view: View, policies: Iterable[ConfigObject]) -> Limits:
    requests: list[Limit] = []
    connections: list[ConnectionLimit] = []
    throttle: Throttle | None = None
    provenance: list[Provenance] = []
    trust_domain = mesh(view).trust_domain
    for obj in policies:
        for index, limit in enumerate(obj.spec.limits):
            provenance.append(Provenance(obj.ref, f"spec.limits[{index}]"))
            name = f"{obj.ref.namespace}/{obj.ref.name}/{limit.name}"
            if limit.requests is not None:
                requests.append(_request_limit(name, obj, limit, trust_domain))
            elif limit.connections is not None:
                burst = limit.burst or limit.connections
                connections.append(ConnectionLimit(name, limit.connections, limit.window_s, burst))
            elif limit.concurrent_connections is not None:
                connections.append(ConnectionLimit(name, limit.concurrent_connections))
            elif limit.bytes is not None:
                rate = limit.bytes / limit.window_s
                throttle = Throttle(min(rate, throttle.bytes_per_s) if throttle else rate)
    return Limits(tuple(requests), tuple(connections), throttle, tuple(provenance))


def _request_limit(name: str, obj: ConfigObject, limit: RateLimit, trust_domain: str) -> Limit:
    policy: RateLimitPolicy = obj.spec
    requests = limit.requests or 1
    return Limit(
        id=name,
        requests=requests,
        window_s=limit.window_s,
        burst=limit.burst or requests,
        shared=limit.scope is Scope.GLOBAL,
        shadow=limit.shadow,
        deny=policy.on_unavailable is Unavailable.DENY,
        when=tuple(_condition(each, obj.ref.namespace, trust_domain) for each in limit.when),
        by=tuple(Key(_KEYS[key.type], key.name.lower()) for key in limit.by if key.type in _KEYS),
        status=policy.status,
        headers=policy.response_headers,
    )


def _condition(match: RequestCondition, namespace: str, trust_domain: str) -> Condition:
    path = match.path
    return Condition(
        method=match.method,
        path=Test(PATHS[path.type], path.value) if path is not None else None,
        headers=tuple((h.name.lower(), Test(VALUES[h.type], h.value)) for h in match.headers),
        identities=_identities(match.source, namespace, trust_domain) if match.source is not None else (),
        networks=match.remote_addresses,
    )


def _identities(source: SourceMatch, namespace: str, trust_domain: str) -> tuple[Test, ...]:
    """The tests of which one must hold, for each combination of the fields that are given.

    Accounts name their namespace, so a list of namespaces beside them narrows the accounts.
    """
    start = f"spiffe://{trust_domain}/ns/"
    accounts = [each if "/" in each else f"{namespace}/{each}" for each in source.service_accounts]
    if source.namespaces:
        accounts = [each for each in accounts if each.partition("/")[0] in source.namespaces]
    by_account = {f"{start}{each.partition('/')[0]}/sa/{each.partition('/')[2]}" for each in accounts}
    exact = set(source.identities)
    if source.service_accounts:
        exact = by_account & exact if exact else by_account
    elif source.namespaces and exact:
        exact = {i for i in exact if any(i.startswith(f"{start}{n}/sa/") for n in source.namespaces)}
    if source.service_accounts or source.identities:
        return tuple(Test(TestKind.EXACT, each) for each in sorted(exact)) or (_NOBODY,)
    return tuple(Test(TestKind.PREFIX, f"{start}{each}/sa/") for each in source.namespaces)


_NOBODY = Test(TestKind.EXACT, "")
"""Fields that exclude one another select nobody."""
