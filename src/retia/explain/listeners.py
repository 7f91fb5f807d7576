"""Which filter chain of a listener takes a connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from retia.explain.calls import Call, Connection
from retia.explain.match import CannotSayError, text_matches
from retia.explain.resources import type_of, unpack

_HTTP_TYPES = {False: "http/1.1", True: "h2c"}
_ORIGINAL_DST = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
_TLS_INSPECTOR = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
_HTTP_INSPECTOR = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"


def inspected(listener: Any, call: Call) -> Connection:
    """What the listener knows of the connection when it chooses: its filters have looked at it."""
    kinds = {type_of(f.typed_config) for f in listener.listener_filters}
    connection = call.connection
    if connection.tls and not (_TLS_INSPECTOR in kinds and not connection.silent):
        connection = replace(connection, tls=False, server_name="", alpn=())
    elif not connection.tls:
        detected: tuple[str, ...] = ()
        if _HTTP_INSPECTOR in kinds and call.request is not None and not connection.silent:
            detected = (_HTTP_TYPES[call.request.http2],)
        connection = replace(connection, alpn=detected)
    return connection


def choose_chain(listener: Any, connection: Connection) -> tuple[Any, str]:
    """The chain and why; ``None``: the connection is closed, and why. May raise :class:`CannotSayError`."""
    default = listener.default_filter_chain if listener.HasField("default_filter_chain") else None
    if listener.HasField("filter_chain_matcher"):
        found, how = walk_matcher(listener.filter_chain_matcher, lambda name: chain_input(name, connection))
        if found is None:
            return (default, "no chain is for it: the default") if default is not None else (None, how)
        name = str(unpack(found.typed_config).value)
        chain = next((c for c in listener.filter_chains if c.name == name), None)
        if chain is None:
            return None, f"the matcher names {name}, and there is no such chain"
        return chain, how
    left, why = list(listener.filter_chains), []
    for narrow in _LEVELS:
        left, reason = narrow(left, connection)
        if reason:
            why.append(reason)
        if not left:
            break
    if left:
        return left[0], ", ".join(why) or "it is for every connection"
    if default is not None:
        return default, "no chain is for it: the default"
    return None, "no filter chain is for this connection: " + (", ".join(why) or "there is none")


# -- the old way: criteria in Envoy's order, each narrowing, with no way back -------------------------------

Narrowed = tuple[list[Any], str]


def _by_value(field: str, said: str, wanted: Callable[[Connection], object]) -> Callable[..., Narrowed]:
    """Chains with that very value, otherwise those that name none."""

    def narrow(chains: list[Any], connection: Connection) -> Narrowed:
        value = wanted(connection)
        exact = [c for c in chains if _single(c.filter_chain_match, field) == value and value]
        if exact:
            return exact, f"{said} {value}"
        return [c for c in chains if not _single(c.filter_chain_match, field)], ""

    return narrow


def _single(match: Any, field: str) -> object:
    value = getattr(match, field)
    return value.value if hasattr(value, "value") else value


def _by_network(field: str, wanted: Callable[[Connection], str]) -> Callable[..., Narrowed]:
    def narrow(chains: list[Any], connection: Connection) -> Narrowed:
        best, longest = [], -1
        for chain in chains:
            ranges = getattr(chain.filter_chain_match, field)
            length = 0 if not ranges else max((_length(r, wanted(connection)) for r in ranges), default=-1)
            if ranges and length < 0:
                continue
            length = length + 1 if ranges else 0
            if length > longest:
                best, longest = [chain], length
            elif length == longest:
                best.append(chain)
        return best, f"{field.replace('_', ' ')}" if longest > 0 else ""

    return narrow


def _length(cidr: Any, address: str) -> int:
    """The prefix length of a range that holds the address; -1: it doesn't."""
    try:
        network = ipaddress.ip_network(f"{cidr.address_prefix}/{cidr.prefix_len.value}", strict=False)
        return network.prefixlen if ipaddress.ip_address(address) in network else -1
    except ValueError:
        return -1


def _by_server_name(chains: list[Any], connection: Connection) -> Narrowed:
    name = connection.server_name.lower()
    wanted = [name] if name else []
    labels = name.split(".")
    wanted += [f"*.{'.'.join(labels[i:])}" for i in range(1, len(labels))] if name else []
    for each in wanted:
        found = [c for c in chains if each in _server_names(c)]
        if found:
            return found, f"server name {each}"
    return [c for c in chains if not c.filter_chain_match.server_names], ""


def _server_names(chain: Any) -> list[str]:
    names = (n.lower() for n in chain.filter_chain_match.server_names)
    return [f"*{n}" if n.startswith(".") else n for n in names]


def _by_alpn(chains: list[Any], connection: Connection) -> Narrowed:
    for protocol in connection.alpn:
        found = [c for c in chains if protocol in c.filter_chain_match.application_protocols]
        if found:
            return found, f"application protocol {protocol}"
    return [c for c in chains if not c.filter_chain_match.application_protocols], ""


def _by_source_type(chains: list[Any], connection: Connection) -> Narrowed:
    local = connection.source == connection.address or ipaddress.ip_address(connection.source).is_loopback
    kind = 1 if local else 2
    found = [c for c in chains if c.filter_chain_match.source_type == kind]
    return (found, "source") if found else ([c for c in chains if not c.filter_chain_match.source_type], "")


def _by_source_port(chains: list[Any], connection: Connection) -> Narrowed:
    found = [c for c in chains if connection.source_port in c.filter_chain_match.source_ports]
    return (
        (found, "source port")
        if found
        else ([c for c in chains if not c.filter_chain_match.source_ports], "")
    )


_LEVELS: Sequence[Callable[[list[Any], Connection], Narrowed]] = (
    _by_value("destination_port", "destination port", lambda c: c.port),
    _by_network("prefix_ranges", lambda c: c.address),
    _by_server_name,
    _by_value("transport_protocol", "transport", lambda c: "tls" if c.tls else "raw_buffer"),
    _by_alpn,
    _by_network("direct_source_prefix_ranges", lambda c: c.source),
    _by_source_type,
    _by_network("source_prefix_ranges", lambda c: c.source),
    _by_source_port,
)


# -- the new way: a tree ------------------------------------------------------------------------------------


def walk_matcher(matcher: Any, value_of: Callable[[Any], str | None]) -> tuple[Any, str]:
    """The action of a ``xds.type.matcher.v3.Matcher`` and how it was found; ``None``: no match.

    Where a branch leads nowhere the search goes on: to shorter prefixes, then to what is for no match.
    """
    for entry in matcher.matcher_list.matchers:
        if _predicate(entry.predicate, value_of):
            found, how = _follow(entry.on_match, value_of)
            if found is not None:
                return found, how
    if matcher.HasField("matcher_tree"):
        tree = matcher.matcher_tree
        value = value_of(tree.input.typed_config)
        for branch, said in _branches(tree, value):
            found, how = _follow(branch, value_of)
            if found is not None:
                return found, f"{tree.input.name} {said}" + (f", {how}" if how else "")
    if matcher.HasField("on_no_match"):
        return _follow(matcher.on_no_match, value_of)
    return None, "nothing in the listener's matcher is for this connection"


def _branches(tree: Any, value: str | None) -> list[tuple[Any, str]]:
    kind = tree.WhichOneof("tree_type")
    if value is None:
        return []
    if kind == "exact_match_map":
        found = tree.exact_match_map.map
        return [(found[value], value)] if value in found else []
    if kind == "prefix_match_map":
        found = tree.prefix_match_map.map
        prefixes = sorted((p for p in found if value.startswith(p)), key=len, reverse=True)
        return [(found[p], f"{p}…") for p in prefixes]
    raise CannotSayError(f"a matcher tree of the kind {type_of(tree.custom_match.typed_config) or kind}")


def _follow(on_match: Any, value_of: Callable[[Any], str | None]) -> tuple[Any, str]:
    if on_match.HasField("matcher"):
        return walk_matcher(on_match.matcher, value_of)
    return on_match.action, ""


def _predicate(predicate: Any, value_of: Callable[[Any], str | None]) -> bool:
    kind = predicate.WhichOneof("match_type")
    if kind == "single_predicate":
        single = predicate.single_predicate
        if single.WhichOneof("matcher") != "value_match":
            raise CannotSayError("a matcher of its own kind in a matcher tree")
        value = value_of(single.input.typed_config)
        return value is not None and text_matches(single.value_match, value)
    if kind == "or_matcher":
        return any(_predicate(p, value_of) for p in predicate.or_matcher.predicate)
    if kind == "and_matcher":
        return all(_predicate(p, value_of) for p in predicate.and_matcher.predicate)
    return not _predicate(predicate.not_matcher, value_of)


def chain_input(packed: Any, connection: Connection) -> str | None:
    """What a matcher of filter chains looks at."""
    match type_of(packed).rpartition(".")[2]:
        case "ServerNameInput":
            return connection.server_name or None
        case "ApplicationProtocolInput":
            return ",".join(f"'{p}'" for p in connection.alpn) or None
        case "DestinationPortInput":
            return str(connection.port)
        case "DestinationIPInput":
            return connection.address
        case "TransportProtocolInput":
            return "tls" if connection.tls else "raw_buffer"
        case "SourceIPInput":
            return connection.source
        case "SourcePortInput":
            return str(connection.source_port)
        case other:
            raise CannotSayError(f"the chain is chosen by {other}")
