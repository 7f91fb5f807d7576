"""What becomes of one call: the API's side of :mod:`retia.explain`.

The interpreter is given the resources as they are generated for that very proxy, and each is compared with
what the proxy has acknowledged: one that is on its way, refused or not asked for yet is said to be so. The
path goes on at the callee's proxy, if that is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from envoy.config.listener.v3 import listener_pb2
from envoy.service.discovery.v3 import discovery_pb2

from retia.api import schema
from retia.api.backend import ApiError
from retia.control import delivery
from retia.control.configuration import Configuration
from retia.control.core import Core
from retia.control.editing import reading
from retia.control.registry import ProxyState
from retia.control.session import Unavailable
from retia.explain import (
    Call,
    Connection,
    Destination,
    Endpoint,
    Path,
    arriving,
    data,
    explain,
    from_bytes,
    http_call,
    lines,
    tcp_call,
)
from retia.model import annotation
from retia.model.ids import DNS_SUFFIX, Host, WorkloadId, expansions
from retia.model.mesh import CaptureMode, Protocol, ProxyKind, Workload
from retia.model.objects import ObjectRef
from retia.model.resource import Name, Resource, TypeUrl
from retia.model.snapshot import PlainView
from retia.policy.registry import resolve_address, resolve_name, service
from retia.sources.store import Store
from retia.translate.names import EXPLICIT, INBOUND

MOST_HOPS = 4
"""Callees that are followed, the likeliest first. Arbitrary."""
SCHEMES = {"http": 80, "https": 443, "tcp": 0, "tls": 443, "grpc": 80}
_Resource: Any = discovery_pb2.Resource  # type: ignore[attr-defined, unused-ignore]


@dataclass(frozen=True, slots=True)
class _Url:
    """The parts of what is called."""

    scheme: str
    host: str
    port: int
    text: str

    @property
    def is_http(self) -> bool:
        return self.scheme in ("http", "grpc")


@dataclass(slots=True)
class _Seen:
    """The resources of one proxy that the interpreter looked at."""

    core: Core
    state: ProxyState
    resources: dict[Name, Resource] = field(default_factory=dict)

    def get(self, name: Name) -> bytes | None:
        if name.type is TypeUrl.SECRET:
            return None
        resource = self.core.pipeline.engine.resource(self.state.proxy, name)
        self.resources[name] = resource
        if not resource.exists:
            return None
        value: bytes = _Resource.FromString(resource.wire).resource.value
        return value

    def states(self) -> list[schema.ExplainResource]:
        asked = {Name(n.type, n.name) for n in delivery.names_of(self.core, self.state)}
        found: dict[str, schema.ExplainResource] = {}
        for name, resource in self.resources.items():
            own = Name(resource.type, resource.name)
            if not resource.exists:
                found[str(name)] = schema.ExplainResource(resource=str(name), state="absent")
                continue
            item = delivery.state_of(self.core, self.state, resource)
            state = item.state
            if state == "pending" and not item.acked and not asked & {name, own}:
                state = "not asked for"
            found[str(own)] = schema.ExplainResource(
                resource=str(own),
                version=resource.version,
                state=state,  # type: ignore[arg-type]
                error=item.error,
            )
        return list(found.values())


class Explaining:
    """Answers ``retia explain``."""

    def __init__(self, core: Core, store: Store, configuration: Configuration) -> None:
        self._core = core
        self._store = store
        self._configuration = configuration

    async def explain(self, request: schema.ExplainRequest) -> schema.ExplainResult:
        state = self.caller(request.workload)
        url = _parse(request.url)
        call, notes = self._call(state, url, request)
        if call is None:
            return schema.ExplainResult(
                proxy=state.proxy.id,
                workload=state.proxy.workload or "",
                listener="",
                address="",
                port=url.port,
                http=url.is_http,
                notes=notes,
            )
        hops, ends, path, arrivals = self._follow(state, call)
        objects = await self._objects(hops)
        notes += await self._health(state, path)
        notes += _waiting(hops)
        result = self._result(state, call, _named(hops, objects), objects, path, ends, notes)
        return result.model_copy(update={"arrivals": arrivals})

    def caller(self, text: str) -> ProxyState:
        """The proxy of a workload, a service's instance or a gateway, as its user names it."""
        registry = self._core.registry
        for name in (text, f"default/{text}"):
            found = registry.proxy(name)
            if found is not None:
                return found[1]
        for candidate in self._instances(text):
            found = registry.proxy(candidate)
            if found is not None:
                return found[1]
        raise ApiError("not_found", f"there is no workload {text!r} with a proxy; 'retia proxies' lists them")

    def _instances(self, text: str) -> list[WorkloadId]:
        namespace, _, name = text.rpartition("/")
        namespace = namespace or "default"
        workloads = sorted(self._core.pipeline.facts.workloads.values(), key=lambda w: w.id)
        mine = [w for w in workloads if w.namespace == namespace]
        exact = [w.id for w in mine if w.service == name or f"{w.service}-{w.version}" == name]
        return exact or [w.id for w in mine if w.id.startswith(f"{namespace}/{name}-")]

    # -- the call ------------------------------------------------------------------------------------------

    def _call(
        self, state: ProxyState, url: _Url, request: schema.ExplainRequest
    ) -> tuple[Call | None, list[str]]:
        """The call as it enters the proxy; ``None``: it does not, and the notes say why."""
        proxy = state.proxy
        if proxy.kind is not ProxyKind.SIDECAR:
            return self._at_gateway(state, url, request)
        if proxy.capture is CaptureMode.EXPLICIT:
            return self._by_forward_proxy(state, url, request)
        view = PlainView(self._core.pipeline.engine.snapshot, proxy)
        meant = resolve_name(view, url.host, proxy.namespace, url.port)
        if meant is None and _is_ip(url.host):
            meant = resolve_address(view, url.host, url.port)
        if meant is None:
            return None, [self._not_captured(state, url)]
        known = service(view, meant.host)
        assert known is not None
        address = url.host if _is_ip(url.host) else known.vip
        if not address:
            return None, [
                f"{meant.host} has no virtual address: its name resolves outside the mesh, and the "
                "connection is captured only if it goes to an address that the mesh knows"
            ]
        port = known.port(meant.port)
        protocol = port.protocol if port is not None else Protocol.TCP
        return _call_to(address, protocol, url, request), []

    def _by_forward_proxy(
        self, state: ProxyState, url: _Url, request: schema.ExplainRequest
    ) -> tuple[Call | None, list[str]]:
        proxy = state.proxy
        if not proxy.explicit_port:
            return None, ["this workload has no listener for explicit capture"]
        method, target = request.method, url.text
        if not url.is_http:
            method, target = "CONNECT", f"http://{url.host}:{url.port}"
        call = http_call(
            method, target, address=proxy.outbound_address, listener=EXPLICIT, headers=_headers(request)
        )
        return replace(call, connection=replace(call.connection, port=proxy.explicit_port)), []

    def _at_gateway(
        self, state: ProxyState, url: _Url, request: schema.ExplainRequest
    ) -> tuple[Call | None, list[str]]:
        """From outside, at the listener with the URL's port, or where that port is bound instead."""
        bound = _bound_ports(state).get(url.port, url.port)
        found = self._edge_listener(state, bound)
        if found is None:
            return None, [f"{state.proxy.id} listens on no port {url.port}"]
        name, address = found
        entry = _secured(Connection(name, address or "127.0.0.1", bound), url)
        if url.scheme == "tcp":
            return Call(entry), []
        made = http_call(request.method, url.text, address="", headers=_headers(request))
        return Call(entry, made.request), []

    def _edge_listener(self, state: ProxyState, bound: int) -> tuple[str, str] | None:
        """The name and address of a gateway's listener with that port; ``None``: it has none."""
        engine = self._core.pipeline.engine
        for name in engine.listed(state.proxy, TypeUrl.LISTENER):
            resource = engine.resource(state.proxy, Name(TypeUrl.LISTENER, name))
            if not resource.exists:
                continue
            message = _Resource.FromString(resource.wire).resource.value
            address = listener_pb2.Listener.FromString(message).address.socket_address
            if address.port_value == bound:
                return name, address.address
        return None

    def _not_captured(self, state: ProxyState, url: _Url) -> str:
        facts = self._core.pipeline.facts
        settings = self._core.pipeline.engine.snapshot.get(("mesh",))
        suffix = settings.dns_suffix if settings is not None else DNS_SUFFIX
        for candidate in expansions(url.host, state.proxy.namespace, suffix):
            known = facts.services.get(Host(candidate))
            if known is not None:
                ports = ", ".join(str(p.number) for p in known.ports) or "none"
                return (
                    f"{known.host} has no port {url.port} (it has {ports}): the connection is not captured, "
                    "and nothing listens there"
                )
        return (
            f"{url.host} is no name of the mesh: the connection is not captured and goes where the host's "
            "own DNS and routes lead; a ServiceEntry would bring it into the mesh"
        )

    # -- the path ------------------------------------------------------------------------------------------

    def _follow(
        self, state: ProxyState, call: Call
    ) -> tuple[list[schema.ExplainHop], dict[str, str], Path, dict[str, schema.ExplainArrival]]:
        """The hops, the workloads of the endpoints, the first proxy's path, and the calls that end at a
        callee's proxy, by cluster."""
        seen = _Seen(self._core, state)
        path = explain(from_bytes(seen.get), call)
        hops = [_hop(state, "how it leaves", path, seen)]
        ends: dict[str, str] = {}
        arrivals: dict[str, schema.ExplainArrival] = {}
        neighbours = self._neighbours(state)
        for destination in sorted(_ends(path), key=lambda d: -d.share):
            for endpoint in destination.endpoints:
                workload = neighbours.get(_address(endpoint))
                if workload is not None:
                    ends[endpoint.address] = workload.id
            if len(hops) <= MOST_HOPS and destination.endpoints:
                more, stopped = self._arrival(state, call, destination, neighbours, MOST_HOPS - len(hops))
                hops += more
                if stopped is not None:
                    arrivals[destination.cluster] = stopped
        return hops, ends, path, arrivals

    def _arrival(
        self,
        caller: ProxyState,
        call: Call,
        destination: Destination,
        neighbours: dict[str, Workload],
        more: int,
    ) -> tuple[list[schema.ExplainHop], schema.ExplainArrival | None]:
        """What the first callee's proxy does, and, where that is a gateway, up to ``more`` callees after it;
        nothing where there is none that is known. Also how the call ends there, if it does."""
        for endpoint in destination.endpoints:
            workload = neighbours.get(_address(endpoint))
            found = self._core.registry.proxy(workload.id) if workload is not None else None
            if found is None or not endpoint.address.rpartition(":")[2].isdigit():
                continue
            seen = _Seen(self._core, found[1])
            listener = self._entry(found[1], endpoint)
            arrived = arriving(destination, call, endpoint, listener=listener, identity=caller.proxy.identity)
            path = explain(from_bytes(seen.get), arrived)
            hops = [_hop(found[1], "how it arrives", path, seen)]
            if found[1].proxy.kind is ProxyKind.GATEWAY:
                for onward in sorted(_ends(path), key=lambda d: -d.share):
                    if len(hops) <= more:
                        rest = more - len(hops)
                        hops += self._arrival(found[1], arrived, onward, neighbours, rest)[0]
            return hops, _stopping(found[1], path)
        return [], None

    def _entry(self, state: ProxyState, endpoint: Endpoint) -> str:
        """The listener by which a callee's proxy takes calls: a gateway has one for each port."""
        if state.proxy.kind is not ProxyKind.GATEWAY:
            return INBOUND
        port = endpoint.address.rpartition(":")[2]
        found = self._edge_listener(state, int(port))
        return found[0] if found is not None else f"at port {port}"

    def _neighbours(self, state: ProxyState) -> dict[str, Workload]:
        """The workloads of the proxy's host by published address; other hosts give theirs the same ones."""
        known = self._core.pipeline.facts.workloads.values()
        return {w.published_address: w for w in known if w.host == state.proxy.host}

    async def _health(self, state: ProxyState, path: Path) -> list[str]:
        """The endpoints on the path that the proxy itself has taken out."""
        session = self._core.sessions.get(str(state.proxy.host))
        wanted = {d.cluster for d in _ends(path)}
        if session is None or not wanted:
            return []
        try:
            reply = await session.query(state.proxy.id, "/clusters?format=json")
            found = json.loads(reply.body)
        except (Unavailable, ValueError):
            return ["the proxy could not be asked which endpoints it holds healthy"]
        return list(_unhealthy(found, wanted))

    async def _objects(self, hops: Iterable[schema.ExplainHop]) -> list[schema.ExplainObject]:
        """The objects that the path names, with the place where each was written."""
        known = {str(ref): ref for ref in self._core.pipeline.facts.objects}
        text = "\n".join(line for hop in hops for line in hop.lines)
        found = []
        for name in sorted(known):
            if name in text:
                path, line = await self._place(known[name])
                found.append(schema.ExplainObject(object=name, path=path, line=line))
        return found

    async def _place(self, ref: ObjectRef) -> tuple[str, int]:
        stored = await reading(lambda: self._store.get(ref))
        if stored is not None:
            return stored.source.path, stored.source.line
        directory = self._configuration.directory
        origin = directory.origin(ref) if directory is not None else None
        return (origin.path, origin.line) if origin is not None else ("", 0)

    def _result(
        self,
        state: ProxyState,
        call: Call,
        hops: list[schema.ExplainHop],
        objects: list[schema.ExplainObject],
        path: Path,
        ends: dict[str, str],
        notes: list[str],
    ) -> schema.ExplainResult:
        proxy = state.proxy
        explicit = proxy.kind is ProxyKind.SIDECAR and proxy.capture is CaptureMode.EXPLICIT
        connection = call.connection
        captured = proxy.kind is ProxyKind.SIDECAR and not explicit
        states = [r.state for hop in hops[:1] for r in hop.resources]
        return schema.ExplainResult(
            proxy=proxy.id,
            workload=proxy.workload or "",
            listener=connection.listener,
            address=connection.address,
            port=connection.port,
            http=call.request is not None,
            send_to=f"{connection.address}:{connection.port}",
            send_as="captured" if captured else "proxy" if explicit else "",
            hops=hops,
            objects=objects,
            status=_statuses(path),
            refused=path.refused,
            clusters=_clusters(path),
            endpoints=ends,
            certain=not path.unknown and not any(s in ("pending", "nacked", "quarantined") for s in states),
            notes=notes,
        )


def _parse(text: str) -> _Url:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or SCHEMES.get(parts.scheme, 0)
    except ValueError as error:
        raise ApiError("invalid", f"{text!r} is no URL: {error}") from error
    if parts.scheme not in SCHEMES or not parts.hostname or not port:
        raise ApiError(
            "invalid",
            f"{text!r} can't be called; give http://HOST:PORT/PATH, https://HOST:PORT, tcp://HOST:PORT or "
            "tls://HOST:PORT",
        )
    rest = parts._replace(scheme="http" if parts.scheme == "grpc" else parts.scheme)
    return _Url(parts.scheme, parts.hostname, port, rest.geturl())


def _call_to(address: str, protocol: Protocol, url: _Url, request: schema.ExplainRequest) -> Call:
    if url.is_http:
        return http_call(
            request.method, url.text, address=address, protocol=protocol, headers=_headers(request)
        )
    call = tcp_call(address, url.port, protocol=protocol)
    return replace(call, connection=_secured(call.connection, url))


def _bound_ports(state: ProxyState) -> dict[int, int]:
    """A gateway's ports that are bound elsewhere (``80:8080,443:8443``)."""
    text = dict(state.proxy.annotations).get(annotation.GATEWAY_PORTS, "")
    pairs = (pair.partition(":") for pair in text.split(",") if ":" in pair)
    return {int(a): int(b) for a, _, b in pairs if a.strip().isdigit() and b.strip().isdigit()}


def _secured(connection: Connection, url: _Url) -> Connection:
    if url.scheme not in ("https", "tls"):
        return connection
    return replace(connection, tls=True, server_name=url.host)


def _headers(request: schema.ExplainRequest) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in request.headers]


def _is_ip(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()


def _hop(state: ProxyState, title: str, path: Path, seen: _Seen) -> schema.ExplainHop:
    shaping = []
    for resource in seen.resources.values():
        made = dict.fromkeys(f"{p.ref} {p.field}".strip() for p in resource.provenance)
        if resource.type is TypeUrl.CLUSTER and made:
            shaping.append(f"cluster {resource.name} is shaped by {', '.join(made)}")
    return schema.ExplainHop(
        proxy=state.proxy.id,
        title=title,
        lines=[*lines(path), *dict.fromkeys(shaping)],
        data=data(path),
        resources=seen.states(),
    )


def _named(hops: list[schema.ExplainHop], objects: list[schema.ExplainObject]) -> list[schema.ExplainHop]:
    """With the file and line behind each object."""
    places = {f"{o.object} ": f"{o.object} ({o.path}:{o.line}) " for o in objects if o.path}
    found = []
    for hop in hops:
        shown = []
        for line in hop.lines:
            for name, place in places.items():
                line = f"{line} ".replace(name, place).rstrip()
            shown.append(line)
        found.append(hop.model_copy(update={"lines": shown}))
    return found


def _address(endpoint: Endpoint) -> str:
    return endpoint.address.rpartition(":")[0]


def _ends(path: Path) -> list[Destination]:
    """The destinations that are reached, through internal listeners too."""
    found: list[Destination] = []
    for destination in path.destinations:
        if destination.next is not None:
            found += _ends(destination.next)
        else:
            found.append(destination)
    return found


def _clusters(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for share, other in path.alternatives:
        for name, part in _clusters(other).items():
            found[name] = found.get(name, 0.0) + part * share
    rest = 1.0 - sum(share for share, _ in path.alternatives)
    for destination in _ends(path):
        found[destination.cluster] = found.get(destination.cluster, 0.0) + destination.share * rest
    return found


def _statuses(path: Path) -> list[int]:
    found = {path.answer.status} if path.answer is not None else set()
    if path.fault is not None and path.fault.abort_share and path.fault.status is not None:
        found.add(path.fault.status)
    for destination in path.destinations:
        if not destination.exists or (not destination.endpoints and destination.kind in ("EDS", "STATIC")):
            found.add(503)
    for _, other in path.alternatives:
        found.update(_statuses(other))
    return sorted(found)


def _stopping(state: ProxyState, path: Path) -> schema.ExplainArrival | None:
    """How a call ends at a callee's proxy; ``None``: it is passed on, or that can't be told."""
    if path.alternatives or path.unknown:
        return None
    if path.refused:
        return schema.ExplainArrival(proxy=state.proxy.id, refused=path.refused)
    if path.answer is not None:
        return schema.ExplainArrival(proxy=state.proxy.id, status=_statuses(path))
    return None


def _waiting(hops: Iterable[schema.ExplainHop]) -> list[str]:
    found = []
    for hop in hops:
        for each in hop.resources:
            if each.state in ("pending", "nacked", "quarantined"):
                why = f": {each.error}" if each.error else ""
                found.append(
                    f"{hop.proxy} has not acknowledged this version of {each.resource} ({each.state}{why}); "
                    "until it does, it goes by what it had before"
                )
    return found


def _unhealthy(clusters: Any, wanted: set[str]) -> Iterable[str]:
    for cluster in clusters.get("cluster_statuses", ()):
        if cluster.get("name") not in wanted:
            continue
        for host in cluster.get("host_statuses", ()):
            health = dict(host.get("health_status", {}))
            told = health.pop("eds_health_status", "HEALTHY")
            reasons = [name for name, value in health.items() if value is True]
            if reasons or told not in ("HEALTHY", "UNKNOWN"):
                socket = host.get("address", {}).get("socket_address", {})
                where = f"{socket.get('address', '?')}:{socket.get('port_value', '?')}"
                why = ", ".join(reasons) or told.lower()
                yield f"{where} of {cluster['name']} is taken out by the proxy ({why})"
