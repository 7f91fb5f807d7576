"""What stands behind a cluster's name: endpoints, TLS, limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2

from retia.explain.calls import Call
from retia.explain.forms import Destination, Endpoint, Tls, Unknown
from retia.explain.resources import Lookup, seconds, type_of, unpack
from retia.model.resource import Name, TypeUrl

NO_LIMIT = 2**32 - 1
_DEFAULT_LIMITS = {
    "max_connections": 1024,
    "max_pending_requests": 1024,
    "max_requests": 1024,
    "max_retries": 3,
}
_CLUSTER = cluster_pb2.Cluster
_HEALTH = {0: "", 1: "healthy", 2: "unhealthy", 3: "draining", 4: "timeout", 5: "degraded"}
_USABLE = (0, 1, 5)
"""Unknown, healthy, degraded."""
MATCH_METADATA = "envoy.transport_socket_match"
_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_RAW = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster, and what of it could not be interpreted."""

    destination: Destination
    unknown: tuple[Unknown, ...] = ()


def find_cluster(lookup: Lookup, name: str, share: float, call: Call) -> Found:
    """The cluster of that name as this call meets it."""
    cluster = lookup(Name(TypeUrl.CLUSTER, name))
    if cluster is None:
        return Found(Destination(name, share, exists=False))
    unknown: list[Unknown] = []
    kind = _kind(cluster)
    endpoints, odd = _endpoints(lookup, cluster, kind, call)
    unknown += [Unknown(f"cluster {name}", text) for text in odd]
    codec, odd_codec = _codec(cluster)
    unknown += [Unknown(f"cluster {name}", text) for text in odd_codec]
    destination = Destination(
        cluster=name,
        share=share,
        kind=kind,
        balancing=_balancing(cluster),
        endpoints=endpoints,
        limits=_limits(cluster),
        outliers=_outliers(cluster),
        connect_timeout_s=seconds(cluster.connect_timeout) if cluster.HasField("connect_timeout") else 5.0,
        codec=codec,
    )
    return Found(destination, tuple(unknown))


def _kind(cluster: Any) -> str:
    if cluster.WhichOneof("cluster_discovery_type") == "cluster_type":
        return str(cluster.cluster_type.name)
    return str(_CLUSTER.DiscoveryType.Name(cluster.type))


def _balancing(cluster: Any) -> str:
    if cluster.HasField("load_balancing_policy"):
        policies = cluster.load_balancing_policy.policies
        names = [p.typed_extension_config.name.rpartition(".")[2] for p in policies]
        return " or ".join(names)
    return str(_CLUSTER.LbPolicy.Name(cluster.lb_policy)).lower()


def _limits(cluster: Any) -> tuple[tuple[str, int], ...]:
    """The circuit breakers of normal priority that can open."""
    found = dict(_DEFAULT_LIMITS)
    for threshold in cluster.circuit_breakers.thresholds:
        if threshold.priority == 0:
            for name in found:
                if threshold.HasField(name):
                    found[name] = getattr(threshold, name).value
            if threshold.HasField("retry_budget"):
                found.pop("max_retries")
                budget = threshold.retry_budget
                found["retry_budget_percent"] = round(budget.budget_percent.value or 20)
                found["min_retry_concurrency"] = budget.min_retry_concurrency.value or 3
            break
    return tuple((name, value) for name, value in found.items() if value != NO_LIMIT)


def _outliers(cluster: Any) -> tuple[tuple[str, str], ...]:
    if not cluster.HasField("outlier_detection"):
        return ()
    found = []
    for descriptor, value in cluster.outlier_detection.ListFields():
        if hasattr(value, "seconds"):
            found.append((descriptor.name, f"{seconds(value):g}s"))
        else:
            found.append((descriptor.name, str(getattr(value, "value", value)).lower()))
    return tuple(found)


def _codec(cluster: Any) -> tuple[str, list[str]]:
    """What is spoken to the endpoints where HTTP is parsed."""
    for packed in cluster.typed_extension_protocol_options.values():
        if not type_of(packed).endswith("upstreams.http.v3.HttpProtocolOptions"):
            continue
        options = unpack(packed)
        kind = options.WhichOneof("upstream_protocol_options")
        if kind == "explicit_http_config":
            chosen = options.explicit_http_config.WhichOneof("protocol_config")
            names = {"http2_protocol_options": "http2", "http3_protocol_options": "http3"}
            return names.get(chosen, "http1"), []
        return ("as the client" if kind == "use_downstream_protocol_config" else "auto"), []
    return ("http2" if cluster.HasField("http2_protocol_options") else "http1"), []


# -- endpoints ---------------------------------------------------------------------------------------------


def _endpoints(lookup: Lookup, cluster: Any, kind: str, call: Call) -> tuple[tuple[Endpoint, ...], list[str]]:
    connection = call.connection
    if kind == "EDS":
        name = cluster.eds_cluster_config.service_name or cluster.name
        assignment = lookup(Name(TypeUrl.ENDPOINTS, name))
        return ((), []) if assignment is None else _assigned(cluster, assignment)
    if kind in ("STATIC", "STRICT_DNS", "LOGICAL_DNS"):
        return _assigned(cluster, cluster.load_assignment)
    if kind == "ORIGINAL_DST":
        tls, odd = _tls_of(cluster, {})
        return (Endpoint(f"{connection.address}:{connection.port}", tls=tls, share=1.0),), odd
    if kind == "envoy.clusters.dynamic_forward_proxy" and call.request is not None:
        tls, odd = _tls_of(cluster, {})
        host, colon, port = call.request.host.rpartition(":")
        secure = tls is not None
        where = f"{host}:{port}" if colon else f"{call.request.host}:{443 if secure else 80}"
        return (Endpoint(where, tls=tls, share=1.0),), odd
    if kind in ("envoy.cluster.strict_dns", "envoy.cluster.logical_dns", "envoy.clusters.dns"):
        return _assigned(cluster, cluster.load_assignment)
    return (), [f"clusters of the kind {kind}"]


def _assigned(cluster: Any, assignment: Any) -> tuple[tuple[Endpoint, ...], list[str]]:
    found: list[Endpoint] = []
    odd: list[str] = []
    shares = _shares(cluster, assignment)
    for number, group in enumerate(assignment.endpoints):
        locality = "/".join(
            p for p in (group.locality.region, group.locality.zone, group.locality.sub_zone) if p
        )
        for index, each in enumerate(group.lb_endpoints):
            metadata = _match_metadata(each)
            tls, unclear = _tls_of(cluster, metadata)
            odd += [text for text in unclear if text not in odd]
            found.append(
                Endpoint(
                    address=_address(each.endpoint.address),
                    priority=group.priority,
                    locality=locality,
                    weight=_weight(each),
                    health=_HEALTH.get(each.health_status, ""),
                    tls=tls,
                    metadata=tuple(sorted(metadata.items())),
                    share=shares.get((number, index), 0.0),
                )
            )
    return tuple(found), odd


def _shares(cluster: Any, assignment: Any) -> dict[tuple[int, int], float]:
    """The share of each endpoint, by its place: the most preferred priority with anything healthy has all."""
    usable = {
        (number, index): (group, each)
        for number, group in enumerate(assignment.endpoints)
        for index, each in enumerate(group.lb_endpoints)
        if each.health_status in _USABLE
    }
    if not usable:
        return {}
    first = min(group.priority for group, _ in usable.values())
    own = {place: _weight(each) for place, (group, each) in usable.items() if group.priority == first}
    groups: dict[int, int] = {}
    for (number, _), weight in own.items():
        groups[number] = groups.get(number, 0) + weight
    if not _by_locality(cluster):
        total = sum(own.values())
        return {place: weight / total for place, weight in own.items()}
    weights = {number: assignment.endpoints[number].load_balancing_weight.value for number in groups}
    total = sum(weights.values()) or 1
    return {
        (number, index): weight / groups[number] * weights[number] / total
        for (number, index), weight in own.items()
    }


def _weight(endpoint: Any) -> int:
    return int(endpoint.load_balancing_weight.value) if endpoint.HasField("load_balancing_weight") else 1


def _by_locality(cluster: Any) -> bool:
    """Whether the weights of localities count."""
    if cluster.common_lb_config.HasField("locality_weighted_lb_config"):
        return True
    for policy in cluster.load_balancing_policy.policies:
        message = unpack(policy.typed_extension_config.typed_config)
        config = getattr(message, "locality_lb_config", None)
        if config is not None and config.HasField("locality_weighted_lb_config"):
            return True
    return False


def _address(address: Any) -> str:
    kind = address.WhichOneof("address")
    if kind == "envoy_internal_address":
        return f"internal:{address.envoy_internal_address.server_listener_name}"
    if kind == "pipe":
        return f"pipe:{address.pipe.path}"
    return f"{address.socket_address.address}:{address.socket_address.port_value}"


def _match_metadata(endpoint: Any) -> dict[str, str]:
    if MATCH_METADATA not in endpoint.metadata.filter_metadata:
        return {}
    fields = endpoint.metadata.filter_metadata[MATCH_METADATA].fields
    return {name: value.string_value for name, value in fields.items()}


# -- TLS ---------------------------------------------------------------------------------------------------


def _tls_of(cluster: Any, metadata: dict[str, str]) -> tuple[Tls | None, list[str]]:
    socket = cluster.transport_socket if cluster.HasField("transport_socket") else None
    for match in cluster.transport_socket_matches:
        wanted = {name: value.string_value for name, value in match.match.fields.items()}
        if all(metadata.get(name) == value for name, value in wanted.items()):
            socket = match.transport_socket
            break
    return read_tls(socket)


def read_tls(socket: Any) -> tuple[Tls | None, list[str]]:
    """How a ``TransportSocket`` opens TLS; ``None``: in plaintext. And what is unclear of it."""
    if socket is None or not socket.typed_config.type_url:
        return None, []
    kind = type_of(socket.typed_config)
    if kind == _RAW:
        return None, []
    message = unpack(socket.typed_config)
    if kind != _TLS:
        inner = getattr(message, "transport_socket", None)
        if inner is not None and inner.typed_config.type_url:
            return read_tls(inner)
        return None, [f"transport sockets of the kind {kind.rpartition('.')[2]}"]
    common = message.common_tls_context
    validation, trust = _validation(common)
    names = tuple(_text(s.matcher) for s in validation.match_typed_subject_alt_names)
    return Tls(message.sni, tuple(common.alpn_protocols), names, _certificate(common), trust), []


def _validation(common: Any) -> tuple[Any, str]:
    kind = common.WhichOneof("validation_context_type")
    if kind == "combined_validation_context":
        combined = common.combined_validation_context
        return combined.default_validation_context, combined.validation_context_sds_secret_config.name
    if kind == "validation_context_sds_secret_config":
        config = common.validation_context_sds_secret_config
        return common.validation_context, config.name
    ca = common.validation_context.trusted_ca
    return common.validation_context, ca.filename or ("inline" if ca.WhichOneof("specifier") else "")


def _certificate(common: Any) -> str:
    for config in common.tls_certificate_sds_secret_configs:
        return str(config.name)
    for certificate in common.tls_certificates:
        return str(certificate.certificate_chain.filename) or "inline"
    return ""


def _text(matcher: Any) -> str:
    kind = matcher.WhichOneof("match_pattern")
    if kind == "exact":
        return str(matcher.exact)
    if kind == "prefix":
        return f"{matcher.prefix}*"
    if kind == "suffix":
        return f"*{matcher.suffix}"
    return str(matcher.safe_regex.regex) if kind == "safe_regex" else str(kind)
