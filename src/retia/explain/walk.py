"""The way of a call through one proxy: listener, filter chain, network filters, and on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from retia.explain.calls import Call
from retia.explain.clusters import find_cluster
from retia.explain.forms import Chain, Destination, Listener, Mirror, NetworkFilter, Path, Step, Unknown
from retia.explain.http import through_manager
from retia.explain.listeners import choose_chain, inspected
from retia.explain.match import CannotSayError, text_matches
from retia.explain.resources import Lookup, share, type_of, unpack, words
from retia.model.resource import Name, TypeUrl

_REDIS_READS = frozenset(
    """
    bitcount bitpos dump exists geodist geohash geopos get getbit getrange hexists hget hgetall hkeys hlen
    hmget hscan hstrlen hvals lindex llen lrange mget pttl scard sdiff sinter sismember smembers srandmember
    sscan strlen ttl type zcard zcount zlexcount zrange zrangebylex zrangebyscore zrank zrevrange
    zrevrangebylex zrevrangebyscore zrevrank zscan zscore
    """.split()  # noqa: SIM905
)
"""Commands that change nothing, as Envoy's Redis proxy has them."""
MAX_DEPTH = 4
"""Internal listeners that are followed one after another. Arbitrary; a cycle ends here."""
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_STATE = "envoy.extensions.filters.network.set_filter_state.v3.Config"
_SNI_CLUSTER = "envoy.extensions.filters.network.sni_cluster.v3.SniCluster"
_RBAC = "envoy.extensions.filters.network.rbac.v3.RBAC"
_UDP = "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig"
_CLUSTER_STATE = "envoy.tcp_proxy.cluster"
_DIALLED = "%DOWNSTREAM_LOCAL_ADDRESS%"


def explain(lookup: Lookup, call: Call, *, depth: int = 0) -> Path:
    """What the proxy whose resources ``lookup`` gives does with ``call``.

    Never raises for what the resources hold: what can't be interpreted becomes an ``Unknown`` step.
    """
    listener = lookup(Name(TypeUrl.LISTENER, call.connection.listener))
    if listener is None:
        return Path((), refused=f"this proxy has no listener {call.connection.listener}")
    steps: list[Step] = [_listener(listener, call)]
    if call.connection.udp:
        return _datagrams(lookup, listener, call, steps)
    connection = inspected(listener, call)
    try:
        chain, why = choose_chain(listener, connection)
    except CannotSayError as error:
        return Path((*steps, Unknown(f"listener {listener.name}", str(error))))
    if chain is None:
        return Path(tuple(steps), refused=why)
    step, denied = _chain(chain, why, call)
    steps.append(step)
    if denied:
        return Path(tuple(steps), refused=denied)
    path = _filters(lookup, chain, call, step.tls, steps)
    return _inside(lookup, path, call, depth)


def _listener(listener: Any, call: Call) -> Listener:
    connection = call.connection
    kind = listener.WhichOneof("listener_specifier")
    address = listener.address.socket_address
    where = "internal" if kind == "internal_listener" else f"{address.address}:{address.port_value}"
    why = f"the connection to {connection.address}:{connection.port} comes in there"
    return Listener(listener.name, where, why)


def _chain(chain: Any, why: str, call: Call) -> tuple[Chain, str]:
    """The step, and why the chain's TLS refuses the connection (empty: it doesn't)."""
    if not chain.HasField("transport_socket"):
        return Chain(chain.name, why), ""
    context = unpack(chain.transport_socket.typed_config)
    inner = getattr(context, "downstream_tls_context", context)
    if not hasattr(inner, "common_tls_context"):
        return Chain(chain.name, why), ""
    common = inner.common_tls_context
    kind = common.WhichOneof("validation_context_type")
    validation = common.validation_context
    if kind == "combined_validation_context":
        validation = common.combined_validation_context.default_validation_context
    patterns = tuple(_pattern(s.matcher) for s in validation.match_typed_subject_alt_names)
    required = bool(inner.require_client_certificate.value)
    step = Chain(chain.name, why, True, required, patterns)
    if not call.connection.tls and not call.connection.udp:
        return step, "the chain ends TLS, and the client speaks plaintext"
    if required and not call.connection.identity:
        return step, "the chain demands a client certificate, and there is none"
    if patterns and call.connection.identity and not _trusted(validation, call.connection.identity):
        return step, f"{call.connection.identity} is none of the names that the chain accepts"
    return step, ""


def _pattern(matcher: Any) -> str:
    kind = matcher.WhichOneof("match_pattern")
    value = matcher.safe_regex.regex if kind == "safe_regex" else getattr(matcher, kind or "exact")
    return f"{value}*" if kind == "prefix" else f"*{value}" if kind == "suffix" else str(value)


def _trusted(validation: Any, identity: str) -> bool:
    return any(text_matches(s.matcher, identity) for s in validation.match_typed_subject_alt_names)


# -- network filters -----------------------------------------------------------------------------------------


def _filters(lookup: Lookup, chain: Any, call: Call, tls: bool, steps: list[Step]) -> Path:
    named = ""
    for each in chain.filters:
        kind = type_of(each.typed_config)
        message = unpack(each.typed_config)
        if message is None:
            return Path((*steps, Unknown(f"filter {each.name}", f"{kind} is not readable here")))
        if kind == _HCM:
            try:
                path = through_manager(lookup, message, call, tls)
            except CannotSayError as error:
                return Path((*steps, Unknown("routes", str(error))))
            return replace(path, steps=(*steps, *path.steps))
        if kind == _TCP:
            return _tcp(lookup, message, call, named, steps)
        if kind == _STATE:
            named = _named_by_state(message, call) or named
            steps.append(NetworkFilter(each.name, f"names the cluster {named}" if named else words(message)))
        elif kind == _RBAC:
            steps.append(NetworkFilter(each.name, words(message)))
            admitted = _admits(message, call.connection.server_name)
            if admitted is None:
                return Path((*steps, Unknown(f"filter {each.name}", "its rules can't be interpreted")))
            if not admitted:
                return Path(tuple(steps), refused=f"{each.name} admits no {call.connection.server_name}")
        elif kind == _SNI_CLUSTER:
            named = call.connection.server_name
            steps.append(NetworkFilter(each.name, f"names the cluster by the server name: {named}"))
        elif kind.endswith("RedisProxy"):
            return _redis(lookup, message, call, steps)
        else:
            steps.append(NetworkFilter(each.name, words(message)))
    return Path(tuple(steps), refused="the chain has no filter that passes bytes on")


def _admits(rbac: Any, server_name: str) -> bool | None:
    """Whether rules by server names alone let a connection in; ``None``: there are others."""
    found = []
    for policy in rbac.rules.policies.values():
        if any(not each.any for each in policy.principals):
            return None
        for permission in policy.permissions:
            if permission.WhichOneof("rule") != "requested_server_name":
                return None
            found.append(text_matches(permission.requested_server_name, server_name))
    return any(found) if rbac.rules.action == rbac.rules.ALLOW else None


def _named_by_state(message: Any, call: Call) -> str:
    for value in message.on_new_connection:
        key = value.object_key
        if key == _CLUSTER_STATE:
            text = value.format_string.text_format_source.inline_string
            return str(text).replace(_DIALLED, f"{call.connection.address}:{call.connection.port}")
    return ""


def _tcp(lookup: Lookup, proxy: Any, call: Call, named: str, steps: list[Step]) -> Path:
    kind = proxy.WhichOneof("cluster_specifier")
    if named:
        shares = [(named, 1.0)]
    elif kind == "weighted_clusters":
        entries = [e for e in proxy.weighted_clusters.clusters if e.weight]
        total = sum(e.weight for e in entries) or 1
        shares = [(e.name, e.weight / total) for e in entries]
    else:
        shares = [(proxy.cluster, 1.0)]
    destinations: list[Destination] = []
    for name, part in shares:
        found = find_cluster(lookup, name, part, call)
        steps += found.unknown
        # Bytes are passed: whatever codec the cluster has for HTTP says nothing here.
        destinations.append(replace(found.destination, codec=""))
    path = Path(tuple(steps), destinations=tuple(destinations))
    if not any(d.exists for d in destinations):
        return replace(
            path, destinations=(), refused=f"there is no cluster {', '.join(n for n, _ in shares)}"
        )
    if all(not d.endpoints and d.kind in ("EDS", "STATIC") for d in destinations):
        return replace(path, destinations=(), refused=f"{', '.join(n for n, _ in shares)} has no endpoints")
    hashed = tuple("the client's address" for p in proxy.hash_policy if p.HasField("source_ip"))
    return replace(path, hashed_by=hashed)


def _redis(lookup: Lookup, proxy: Any, call: Call, steps: list[Step]) -> Path:
    """Where a command goes by its key: the longest prefix counts."""
    if len(call.command) < 2:
        return Path((*steps, Unknown("redis", "which of its routes a command takes depends on its key")))
    command, key = call.command[0].lower(), call.command[1]
    routes = proxy.prefix_routes
    fold = str.lower if routes.case_insensitive else str
    fitting = [r for r in routes.routes if fold(key).startswith(fold(r.prefix))]
    if fitting:
        route = max(fitting, key=lambda r: len(r.prefix))
    elif routes.HasField("catch_all_route"):
        route = routes.catch_all_route
    else:
        return Path(
            tuple(steps), refused=f"no route is for the key {key}; the command is answered by an error"
        )
    reads = command in _REDIS_READS
    name = route.read_command_policy.cluster if reads and route.read_command_policy.cluster else route.cluster
    said = f"keys that begin with {route.prefix!r}" if route.prefix else "all other keys"
    steps.append(NetworkFilter("redis", f"{said} go to {name}" + (" where they only read" if reads else "")))
    found = find_cluster(lookup, name, 1.0, call)
    steps += found.unknown
    if not found.destination.exists:
        return Path(tuple(steps), refused=f"there is no cluster {name}; an error is answered")
    sent = key[len(route.prefix) :] if route.remove_prefix else key
    mirrors = tuple(
        Mirror(p.cluster, share(p.runtime_fraction.default_value) if p.HasField("runtime_fraction") else 1.0)
        for p in route.request_mirror_policy
        if not (reads and p.exclude_read_commands)
    )
    destination = replace(found.destination, codec="", method=call.command[0], path=sent)
    return Path(tuple(steps), destinations=(destination,), mirrors=mirrors)


def _datagrams(lookup: Lookup, listener: Any, call: Call, steps: list[Step]) -> Path:
    for each in listener.listener_filters:
        if type_of(each.typed_config) == _UDP:
            message = unpack(each.typed_config)
            if message.cluster:
                found = find_cluster(lookup, message.cluster, 1.0, call)
                destination = replace(found.destination, codec="")
                return Path((*steps, *found.unknown), destinations=(destination,))
            return Path((*steps, Unknown(f"listener {listener.name}", "a matcher of datagrams")))
    return Path(tuple(steps), refused="the listener takes no datagrams")


# -- internal listeners ------------------------------------------------------------------------------------


def _inside(lookup: Lookup, path: Path, call: Call, depth: int) -> Path:
    """Follow destinations that lead to an internal listener of this proxy."""
    if not any(e.address.startswith("internal:") for d in path.destinations for e in d.endpoints):
        return path
    if depth >= MAX_DEPTH:
        return replace(path, steps=(*path.steps, Unknown("internal listeners", "more than four in a row")))
    found = []
    for destination in path.destinations:
        names = [e.address[9:] for e in destination.endpoints if e.address.startswith("internal:")]
        if names:
            inner = replace(call, connection=replace(call.connection, listener=names[0]))
            destination = replace(destination, next=explain(lookup, inner, depth=depth + 1))
        found.append(destination)
    return replace(path, destinations=tuple(found))
