"""What of the supported kinds this version does not apply yet, and what never has an effect here.

One list as data, so that it can shrink. Rules are matched against the user's document itself, so that they
are reported together with all other errors. A field that is given but empty (``[]``, ``{}``, ``null``) says
nothing and is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from retia.config.codes import Code
from retia.config.schema.base import Path, Problem
from retia.config.schema.types import is_claim

_NOT_YET = "is not supported by this version"
_SAID = {Code.NO_EFFECT_FIELD: "has no effect", Code.DEPRECATED_FIELD: "is an old name"}


@dataclass(frozen=True, slots=True)
class Limit:
    """A field (``[]``: each item, ``*``: each key of a map) that is not applied, or only with some values."""

    field: str
    note: str
    allowed: Callable[[Any], bool] | None = None
    """The values that are applied; ``None``: no value is."""
    code: Code = Code.UNSUPPORTED_FIELD

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.field.replace("[]", ".[]").split("."))


def _among(*values: str) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, str) or value in values


def _not_among(*values: object) -> Callable[[Any], bool]:
    return lambda value: value not in values


def _no_claims(value: Any) -> bool:
    return not isinstance(value, Mapping) or not any(is_claim(str(key)) for key in value)


def _redirects(value: Any) -> bool:
    if not isinstance(value, int) or not 300 <= value <= 399:
        return True  # no redirect at all: the schema says so
    return value in (301, 302, 303, 307, 308)


def _under(prefix: str, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    return tuple(Limit(f"{prefix}.{each.field}", each.note, each.allowed, each.code) for each in limits)


_ENDPOINT = (Limit("network", "every endpoint is dialled directly"),)
_GROUP = (
    Limit("template.address", "each instance has its own", None, Code.NO_EFFECT_FIELD),
    Limit("template.ports", "an instance says its own ports", None, Code.NO_EFFECT_FIELD),
    Limit("template.network", "every endpoint is dialled directly"),
    Limit(
        "template.serviceAccount",
        "an instance's account is the one that it is started with",
        None,
        Code.NO_EFFECT_FIELD,
    ),
    Limit("probe", "an instance is in use while it listens; give `retia run --ready` an address to ask"),
)
_CAPTURED = "connections are captured as the workload is"
_SIDECAR = (
    Limit("ingress[].bind", "the proxy listens on the workload's own address"),
    Limit("ingress[].captureMode", _CAPTURED, _not_among("NONE")),
    Limit("ingress[].tls", "between workloads TLS is the mesh's; end other TLS at a gateway"),
    *(
        Limit(
            f"{pool}.http.{field}",
            "a program is spoken to as it is declared to speak",
            None,
            Code.NO_EFFECT_FIELD,
        )
        for pool in ("ingress[].connectionPool", "inboundConnectionPool")
        for field in ("h2UpgradePolicy", "useClientProtocol")
    ),
    Limit("egress[].bind", "use an upstream of the workload in the mesh file", _among("0.0.0.0")),
    Limit("egress[].captureMode", _CAPTURED, _not_among("NONE")),
    Limit("egress[].port.targetPort", "a service's own port is dialled", None, Code.NO_EFFECT_FIELD),
    Limit("egress[].port.protocol", "a service says what it speaks", None, Code.NO_EFFECT_FIELD),
)
_PROXY_CONFIG = (
    Limit("concurrency", "the agent chooses by the host's cores"),
    Limit("environmentVariables", "Envoy reads none", None, Code.NO_EFFECT_FIELD),
    Limit("image", "Envoy is installed with Retia", None, Code.NO_EFFECT_FIELD),
)
_INGRESS = "Ingress objects are not read"
_OWN_PORTS = "ports are given when the mesh is started"
_MESH_CONFIG = (
    *(
        Limit(field, note)
        for field, note in (
            ("ca", "the mesh has its own authority"),
            ("caCertificates", "the trust bundle is the authority's"),
            ("certificates", "Istio has dropped it too"),
            ("configSources", "objects come from apply and from a directory"),
            ("defaultConfig", "the agent starts the proxies"),
            ("defaultProviders", "only accessLogFile is"),
            ("defaultTrafficPolicy", "write a DestinationRule in the root namespace"),
            ("discoverySelectors", "every namespace is read"),
            ("extensionProviders", "only accessLogFile is"),
            ("inboundClusterStatName", "names of statistics are fixed"),
            ("meshMTLS", "TLS 1.3 is spoken between workloads"),
            ("outboundClusterStatName", "names of statistics are fixed"),
            ("serviceEntryVisibility", "use exportTo"),
            ("tlsDefaults", "TLS 1.2 or newer is spoken to servers outside"),
            ("trustDomainAliases", "a mesh has one trust domain"),
            ("zoneAwareLbSetting", "use localityLbSetting"),
        )
    ),
    *(
        Limit(field, note, None, Code.NO_EFFECT_FIELD)
        for field, note in (
            ("disableEnvoyListenerLog", "listeners log nothing by themselves"),
            ("enablePrometheusMerge", "applications' metrics are not collected"),
            ("hboneIdleTimeout", "there are no tunnels between workloads"),
            ("inboundTrafficPolicy", "a program is reached at its own address"),
            ("ingressClass", _INGRESS),
            ("ingressControllerMode", _INGRESS),
            ("ingressSelector", _INGRESS),
            ("ingressService", _INGRESS),
            ("proxyHttpPort", _OWN_PORTS),
            ("proxyInboundListenPort", _OWN_PORTS),
            ("proxyListenPort", _OWN_PORTS),
            ("serviceScopeConfigs", "the mesh is one cluster"),
            ("serviceSettings", "the mesh is one cluster"),
            ("trustDomain", "it is chosen when the mesh is made (`retia controller --trust-domain`)"),
        )
    ),
    Limit("enableAutoMtls", "mutual TLS between workloads is automatic", _not_among(False)),
    Limit("enableEnvoyAccessLogService", "only accessLogFile is", _not_among(True)),
    Limit("enableTracing", "spans are not made", _not_among(True)),
    Limit("pathNormalization.normalization", "paths are normalized as by BASE", _among("DEFAULT", "BASE")),
    Limit("rootNamespace", "it is retia-system, or istio-system", _among("istio-system", "retia-system")),
    Limit("verifyCertificateAtClient", "use insecureSkipVerify in a DestinationRule", _not_among(False)),
)
_INSTALLER = (
    "profile",
    "hub",
    "tag",
    "namespace",
    "revision",
    "compatibilityVersion",
    "defaultRevision",
    "installPackagePath",
    "components",
    "addonComponents",
    "unvalidatedValues",
    "values",
)
_TRAFFIC_POLICY = (
    Limit("loadBalancer.zoneAwareLbSetting", "use localityLbSetting"),
    Limit("loadBalancer.consistentHash.minimumRingSize", "use ringHash", None, Code.DEPRECATED_FIELD),
    Limit("loadBalancer.warmupDurationSecs", "use warmup", None, Code.DEPRECATED_FIELD),
    Limit("loadBalancer.simple", "use LEAST_REQUEST", _not_among("LEAST_CONN"), Code.DEPRECATED_FIELD),
    Limit("outlierDetection.consecutiveErrors", "use consecutiveGatewayErrors or consecutive5xxErrors"),
)
_POLICY_ONLY = (Limit("retryBudget.budgetInterval", "retries are compared with the requests of the moment"),)

_DEFAULTS = "no gateway of this mesh takes routes by default; name it in parentRefs"
_SCOPE = Limit("useDefaultGateways", _DEFAULTS, _not_among("All"))
_AUTH = "authorization of another service is not asked for"
_PARAMETERS = "gateways have no parameters here"
_OPTIONS = "no option is known here"
_LISTENERS = (
    Limit("listeners[].protocol", "UDP is not carried", _not_among("UDP")),
    Limit("listeners[].tls.options", _OPTIONS),
)
_GATEWAY_API: Mapping[str, tuple[Limit, ...]] = {
    "GatewayClass": (Limit("parametersRef", _PARAMETERS),),
    "Gateway.gateway.networking.k8s.io": (
        Limit("defaultScope", _DEFAULTS, _not_among("All")),
        *_LISTENERS,
        Limit("tls.backend", "gateways show backends the mesh's own certificate"),
        Limit("infrastructure.parametersRef", _PARAMETERS),
        Limit("infrastructure.labels", "proxies get theirs when they start", None, Code.NO_EFFECT_FIELD),
        Limit("infrastructure.annotations", "proxies get theirs when they start", None, Code.NO_EFFECT_FIELD),
        Limit("addresses", "the proxies that serve it have theirs", None, Code.NO_EFFECT_FIELD),
    ),
    "ListenerSet": _LISTENERS,
    "XListenerSet": _LISTENERS,
    "HTTPRoute": (
        _SCOPE,
        Limit("rules[].filters[].externalAuth", _AUTH),
        Limit("rules[].backendRefs[].filters[].externalAuth", _AUTH),
    ),
    "GRPCRoute": (_SCOPE,),
    "TCPRoute": (_SCOPE,),
    "TLSRoute": (_SCOPE,),
    "ReferenceGrant": (),
    "BackendTLSPolicy": (Limit("options", _OPTIONS),),
}

LIMITS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "VirtualService": (
            Limit("tcp[].match[].sourceSubnet", "Istio doesn't apply it either; use sourceLabels"),
            Limit("http[].redirect.redirectCode", "301, 302, 303, 307 and 308 are", _redirects),
            Limit("http[].match[].headers", "no token is verified, so its claims match nothing", _no_claims),
            Limit("http[].match[].withoutHeaders", "no token is verified, so it has no claims", _no_claims),
            Limit("http[].corsPolicy.allowOrigin", "use allowOrigins", None, Code.DEPRECATED_FIELD),
            Limit("http[].mirrorPercent", "use mirrorPercentage", None, Code.DEPRECATED_FIELD),
            Limit("http[].fault.delay.percent", "use percentage", None, Code.DEPRECATED_FIELD),
            Limit("http[].fault.delay.exponentialDelay", "Istio refuses it too; use fixedDelay"),
            Limit("http[].fault.abort.http2Error", "Istio refuses it too; use httpStatus or grpcStatus"),
        ),
        "DestinationRule": (
            *_under("trafficPolicy", _TRAFFIC_POLICY + _POLICY_ONLY),
            *_under("trafficPolicy.portLevelSettings[]", _TRAFFIC_POLICY),
            *_under("subsets[].trafficPolicy", _TRAFFIC_POLICY + _POLICY_ONLY),
            *_under("subsets[].trafficPolicy.portLevelSettings[]", _TRAFFIC_POLICY),
        ),
        "ServiceEntry": (*_under("endpoints[]", _ENDPOINT),),
        "WorkloadGroup": _GROUP,
        "Sidecar": _SIDECAR,
        "ProxyConfig": _PROXY_CONFIG,
        "Namespace": (),
        "IstioOperator": (
            *_under("meshConfig", _MESH_CONFIG),
            *(Limit(field, "it is for an installer", None, Code.NO_EFFECT_FIELD) for field in _INSTALLER),
        ),
        "RedisRoute": (),
        "Rollout": (),
        "TrafficLane": (
            Limit("match[].user.claim", "tokens are not verified yet; name a header that something verified"),
        ),
        "RateLimitPolicy": (
            Limit("limits[].messages", "stock Envoy can't count gRPC messages; limit requests or bytes"),
            Limit("limits[].by[].type", "use a header", _not_among("Cookie")),
        ),
        "OverloadPolicy": (),
        "HttpPolicy": (Limit("cache", "Envoy's cache filter is not ready for production"),),
        "WorkloadEntry": _ENDPOINT,
        "EnvoyFilter": (
            Limit("configPatches[].applyTo", "the agent makes Envoy's bootstrap", _not_among("BOOTSTRAP")),
            Limit("configPatches[].match.context", "there are no waypoints", _not_among("WAYPOINT")),
            Limit("configPatches[].match.proxy", "select workloads by labels (workloadSelector)"),
            Limit("configPatches[].match.listener.portName", "use portNumber"),
            Limit("targetRefs", "select workloads by labels (workloadSelector)"),
        ),
        "PeerAuthentication": (),
        "Gateway": (
            Limit("servers[].port.targetPort", "Istio's is without effect too", None, Code.DEPRECATED_FIELD),
            Limit("servers[].defaultEndpoint", "Istio's is without effect too; write a VirtualService"),
        ),
        "Secret": (Limit("immutable", "it may be changed", None, Code.NO_EFFECT_FIELD),),
        "ConfigMap": (),
        **_GATEWAY_API,
        "Service": (
            *(
                Limit(field, "it is for Kubernetes", None, Code.NO_EFFECT_FIELD)
                for field in (
                    "externalIPs",
                    "externalTrafficPolicy",
                    "internalTrafficPolicy",
                    "loadBalancerIP",
                    "loadBalancerClass",
                    "loadBalancerSourceRanges",
                    "healthCheckNodePort",
                    "publishNotReadyAddresses",
                    "sessionAffinityConfig",
                    "ports[].nodePort",
                )
            ),
            Limit(
                "ports[].protocol",
                "only TCP is carried; the port is left out",
                _among("TCP"),
                Code.NO_EFFECT_FIELD,
            ),
        ),
    }
)
"""By kind; fields are of ``spec``."""


def unsupported(kind: str, spec: Any) -> Iterator[Problem]:
    """The fields of ``spec`` (a user's document, or one made by ``to_document``) that are not applied."""
    yield from _exceeded(LIMITS[kind], spec)


def unsupported_settings(raw: Any) -> Iterator[Problem]:
    """The fields of a MeshConfig that are not applied."""
    yield from _exceeded(_MESH_CONFIG, raw)


def _exceeded(limits: tuple[Limit, ...], spec: Any) -> Iterator[Problem]:
    for limit in limits:
        for path, value in _find(spec, limit.parts, ()):
            if value in (None, [], {}, "") or (limit.allowed is not None and limit.allowed(value)):
                continue
            yield Problem(path, _message(limit, value), limit.code)


def _message(limit: Limit, value: Any) -> str:
    said = _SAID.get(limit.code, _NOT_YET)
    shown = ", ".join(map(str, value)) if isinstance(value, list) else value
    what = said if limit.allowed is None else f"is {shown}, which {said}"
    return f"{what}; {limit.note}" if limit.note else what


def _find(value: Any, parts: tuple[str, ...], path: Path) -> Iterator[tuple[Path, Any]]:
    if not parts:
        yield path, value
    elif parts[0] == "[]":
        for index, item in enumerate(value if isinstance(value, list | tuple) else ()):
            yield from _find(item, parts[1:], (*path, index))
    elif isinstance(value, Mapping) and parts[0] in value:
        yield from _find(value[parts[0]], parts[1:], (*path, parts[0]))
