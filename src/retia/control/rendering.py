"""The controller's values as the HTTP API's messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retia.api import schema
from retia.config.kinds import KINDS
from retia.config.schema.secret import redacted
from retia.control import delivery, mesh_settings
from retia.control.core import Core
from retia.control.registry import HostState, ProxyState
from retia.control.rollouts import Status
from retia.model import annotation
from retia.model.finding import Finding
from retia.model.ids import SpiffeId
from retia.model.mesh import Endpoint, MeshSettings, Service, Workload
from retia.policy.gateway_api.names import GATEWAY
from retia.sources.store import StoredObject

SHORT = {
    "vs": "VirtualService",
    "dr": "DestinationRule",
    "se": "ServiceEntry",
    "we": "WorkloadEntry",
    "pa": "PeerAuthentication",
    "svc": "Service",
    "gw": "Gateway",
    "ns": "Namespace",
    "cm": "ConfigMap",
    "gc": "GatewayClass",
    "gtw": GATEWAY,
    "lset": "ListenerSet",
    "refgrant": "ReferenceGrant",
    "btlspolicy": "BackendTLSPolicy",
}
"""Short names, after istioctl and kubectl."""


def known_kinds() -> str:
    """All kinds for a person, with their short names."""
    shorts = {full: short for short, full in SHORT.items()}
    return ", ".join(f"{name} ({shorts[name]})" if name in shorts else name for name in sorted(KINDS))


def kind_of(text: str) -> str | None:
    """A kind as its user spells it: any case, singular, plural or short; ``None``: there is no such.

    Its group may follow (``gateways.gateway.networking.k8s.io``), and must where another group's kind of that
    name is meant first.
    """
    word, dot, group = text.lower().partition(".")
    if not dot and word in SHORT:
        return SHORT[word]
    for kind in KINDS.values():
        if word not in _spellings(kind.kind.lower()):
            continue
        if group == kind.group if dot else not kind.qualified:
            return kind.name
    return None


def _spellings(name: str) -> tuple[str, str]:
    """Singular and plural, as in English."""
    if name.endswith("y") and name[-2] not in "aeiou":
        return name, f"{name[:-1]}ies"
    return name, f"{name}es" if name.endswith("s") else f"{name}s"


def finding_of(finding: Finding) -> schema.Finding:
    return schema.Finding(
        code=finding.code,
        level=finding.level.value,
        message=finding.message,
        object=str(finding.ref) if finding.ref else "",
        field=finding.field,
        path=finding.origin.path,
        line=finding.origin.line,
        remedy=finding.remedy,
    )


def rollout_of(status: Status) -> schema.RolloutInfo:
    plan, state, sample = status.plan, status.state, status.sample
    took = sample.percentile_s(plan.gates.percentile)
    return schema.RolloutInfo(
        namespace=status.ref.namespace,
        name=status.ref.name,
        service=status.service,
        phase=state.phase.value,
        step=state.step + 1,
        steps=[schema.RolloutStepInfo(weight=s.weight, hold_s=s.hold_s, pause=s.pause) for s in plan.steps],
        weight=state.weight,
        reason=state.reason,
        waiting=status.waiting,
        changed=int(state.changed),
        requests=sample.requests,
        failures=sample.failures,
        success_percent=sample.success_percent if sample.requests else None,
        latency_ms=None if took is None else took * 1000,
        percentile=None if took is None else plan.gates.percentile,
    )


def object_of(
    stored: StoredObject, findings: Iterable[Finding] = (), status: Mapping[str, Any] | None = None
) -> schema.ObjectInfo:
    """``status`` is what the controller says of the object; its user's own is left out."""
    return schema.ObjectInfo(
        kind=stored.ref.kind,
        namespace=stored.ref.namespace,
        name=stored.ref.name,
        revision=stored.revision,
        created=stored.created,
        manifest=_with_status(_with_version(redacted(stored.document), stored.revision), status),
        owner=stored.source.owner,
        path=stored.source.path,
        line=stored.source.line,
        findings=[finding_of(f) for f in findings],
    )


def _with_status(document: dict[str, Any], status: Mapping[str, Any] | None) -> dict[str, Any]:
    shown = {key: value for key, value in document.items() if key != "status"}
    return {**shown, "status": dict(status)} if status else shown


def _with_version(document: dict[str, Any], revision: int) -> dict[str, Any]:
    return {**document, "metadata": {**document.get("metadata", {}), "resourceVersion": str(revision)}}


def service_of(service: Service, endpoints: int, mtls: str) -> schema.ServiceInfo:
    return schema.ServiceInfo(
        host=service.host,
        namespace=service.namespace,
        name=service.name,
        vip=service.vip,
        ports=[
            schema.ServicePortInfo(
                number=p.number, protocol=p.protocol, name=p.name, target_port=p.target_port
            )
            for p in service.ports
        ],
        endpoints=endpoints,
        external=service.external,
        origin=service.origin,
        mtls=mtls,
    )


def endpoint_of(endpoint: Endpoint) -> schema.EndpointInfo:
    return schema.EndpointInfo(
        service_port=endpoint.service_port,
        address=endpoint.address,
        port=endpoint.port,
        wire=endpoint.wire,
        workload=endpoint.workload or "",
        host=endpoint.host or "",
        identity=endpoint.identity or "",
        labels=dict(endpoint.labels),
        weight=endpoint.weight,
    )


def workload_of(workload: Workload, trust_domain: str, lease: str) -> schema.WorkloadInfo:
    # A gateway listens where Gateway objects say so, perhaps nowhere.
    silent = bool(workload.ports) and not any(p.listening for p in workload.ports)
    starting = silent and annotation.GATEWAY not in dict(workload.annotations)
    if lease != "valid":
        state = "lost"
    elif starting:
        state = "starting"
    else:
        state = "ready" if workload.healthy else "unhealthy"
    identity = SpiffeId(f"spiffe://{trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}")
    return schema.WorkloadInfo(
        id=workload.id,
        namespace=workload.namespace,
        service=workload.service,
        version=workload.version,
        service_account=workload.service_account,
        identity=identity,
        host=workload.host,
        ports=[
            schema.WorkloadPortInfo(
                number=p.number, app_port=p.app_port, protocol=p.protocol, listening=p.listening
            )
            for p in workload.ports
        ],
        labels=dict(workload.labels),
        annotations=dict(workload.annotations),
        published_address=workload.published_address,
        app_address=workload.app_address,
        capture=workload.capture,
        healthy=workload.healthy,
        state=state,  # type: ignore[arg-type]
    )


def proxy_of(core: Core, host: HostState, proxy: ProxyState) -> schema.ProxyInfo:
    health = proxy.health
    synced = delivery.sync_of(core, proxy)
    direct = bool(proxy.acked) and not health.state
    state = health.state or ("ready" if direct else "unknown")
    if core.registry.leases.state(host.id, core.clock.monotonic()) != "valid":
        state = "lost"
    return schema.ProxyInfo(
        id=proxy.proxy.id,
        kind=proxy.proxy.kind,
        workload=proxy.proxy.workload or "",
        host=host.id,
        state=state,
        connected=health.connected,
        sync=[
            schema.TypeSync(
                type=kind.short, wanted=sync.wanted, acked=sync.acked, version=_version(proxy, kind)
            )
            for kind, sync in sorted(synced.items(), key=lambda item: item[0].short)
        ],
        nacks=[_nack(core, proxy, name, version, error) for name, (version, error) in proxy.nacked.items()],
        certificate_expiry=health.certificate_expiry,
        allocated_bytes=health.allocated_bytes,
        rss_bytes=health.rss_bytes,
        restarts=health.restarts,
        envoy_version=health.envoy_version,
        pid=health.pid,
    )


def _version(proxy: ProxyState, kind: object) -> str:
    """One hash over all versions of a type that the proxy has acknowledged."""
    from retia.xds.wire import version_of

    held = sorted(f"{n.name}={v}" for n, v in proxy.acked.items() if n.type is kind)
    return version_of("\n".join(held).encode()) if held else ""


def _nack(core: Core, proxy: ProxyState, name: object, version: str, error: str) -> schema.Nack:
    refusal = core.quarantine.refusals.get(version)
    return schema.Nack(
        resource=str(name),
        version=version,
        error=error,
        object=refusal.objects[0] if refusal and refusal.objects else "",
    )


def host_of(core: Core, host: HostState) -> schema.HostInfo:
    return schema.HostInfo(
        id=host.id,
        advertise_address=host.hello.advertise_address,
        gateway_port=host.hello.gateway_port,
        software=host.hello.software,
        protocol=host.hello.protocol,
        connected=host.connected,
        lease=core.registry.leases.state(host.id, core.clock.monotonic()),  # type: ignore[arg-type]
        last_seen=int(host.last_seen),
        clock_skew_s=round(host.clock_skew_s, 3),
        certificate_expiry=int(host.certificate_expiry),
        workloads=len(host.workloads),
        proxies=len(host.proxies),
    )


def mesh_of(settings: MeshSettings) -> schema.MeshSettingsInfo:
    return schema.MeshSettingsInfo(
        trust_domain=settings.trust_domain, dns_suffix=settings.dns_suffix, **mesh_settings.flat(settings)
    )
