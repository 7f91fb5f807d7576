"""The generated run: calls explained over resources as they are built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from retia.explain import (
    Call,
    Destination,
    Endpoint,
    Path,
    arriving,
    explain,
    from_bytes,
    http_call,
    tcp_call,
)
from retia.explain.calls import outbound_listener
from retia.model.mesh import Protocol
from retia.model.resource import TypeUrl
from tests.simulation.case import CallSpec, Case
from tests.simulation.meshes import Simulated, dialled, host_port
from tests.simulation.outcome import Outcome, Seen
from tests.support.world import Mesh

EXPLICIT_PORT = 15009
_GRPC_OF = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""gRPC's status for the HTTP status of an answer that Envoy makes itself."""
_GRPC_UNKNOWN = 2
_ON_TIMEOUT = {"5xx", "gateway-error", "reset"}
"""What an attempt that takes too long is tried again for."""
_RETRIABLE = {"5xx": range(500, 600), "gateway-error": (502, 503, 504), "retriable-4xx": (409,)}


def predict(case: Case) -> Iterator[tuple[CallSpec, Outcome]]:
    """Each call with what should become of it."""
    world = Simulated(case)
    for call in case.calls:
        if "generated" in call.only:
            yield call, _Prediction(world, call).outcome()


class _Prediction:
    def __init__(self, world: Simulated, spec: CallSpec) -> None:
        self.world = world
        self.spec = spec
        self.mesh, self.call = self._entry()

    def outcome(self) -> Outcome:
        path = explain(_lookup(self.mesh), self.call)
        rest = 1.0 - sum(share for share, _ in path.alternatives)
        branches = [(rest, path), *path.alternatives]
        parts = [(share, self._branch(each)) for share, each in branches]
        if len(parts) == 1:
            return parts[0][1]
        return _joined(parts, path, self.world)

    def _branch(self, path: Path) -> Outcome:
        """What becomes of the call where chance has decided for a rule."""
        found = Outcome(path=path, labels=self.world.label_of)
        self._add(found, path, 1.0)
        self._settle(found, path)
        return found

    # -- how it begins --------------------------------------------------------------------------------------

    def _entry(self) -> tuple[Mesh, Call]:
        spec = self.spec
        if spec.at.startswith("gateway/"):
            return self._at_gateway()
        if spec.at:
            return self._at_inbound()
        changes = {"explicit_port": EXPLICIT_PORT} if spec.explicit else {}
        mesh = self.world.sidecar(spec.sender, **changes)
        if not spec.method:
            host, port = host_port(spec.dial or spec.connect)
            address, protocol = dialled(self.world, mesh, host, port)
            listener = outbound_listener(protocol or Protocol.TCP)
            call = tcp_call(address, port, listener=listener, **_tls(spec))  # type: ignore[arg-type]
            return mesh, replace(call, command=spec.redis)
        parts = urlsplit(spec.url)
        host, port = host_port(spec.dial or parts.netloc, 443 if parts.scheme == "https" else 80)
        address, protocol = dialled(self.world, mesh, host, port)
        url = spec.url
        call = http_call(
            spec.method,
            url,
            address=address,
            protocol=protocol or Protocol.HTTP,
            listener="explicit" if spec.explicit else "",
            headers=spec.headers,
            body_bytes=len(spec.body),
            **_tls(spec),
        )
        call = _as_http2(call, spec.http2)
        if spec.dial:
            call = _dial(call, address, port)
        return mesh, call

    def _at_gateway(self) -> tuple[Mesh, Call]:
        spec = self.spec
        name, port = host_port(spec.at.removeprefix("gateway/"))
        mesh = self.world.gateway(name)
        listener = listener_at(mesh, port, udp=bool(spec.udp))
        source = {"source": spec.source} if spec.source else {}
        address = mesh.proxy.edge_address
        if spec.udp:
            return mesh, tcp_call(address, port, listener=listener, udp=True, **source)
        if not spec.method:
            call = tcp_call(address, port, listener=listener, **_tls(spec), **source)  # type: ignore[arg-type]
            return mesh, call
        tls = _tls(spec)
        if urlsplit(spec.url).scheme == "https" and not tls:
            host = host_port(urlsplit(spec.url).netloc)[0]
            tls = {"tls": True, "server_name": spec.sni or host, "alpn": spec.alpn or ("http/1.1",)}
        call = http_call(
            spec.method,
            spec.url,
            address=address,
            listener=listener,
            headers=spec.headers,
            body_bytes=len(spec.body),
            **tls,
            **source,
        )
        return mesh, _as_http2(_dial(call, address, port), spec.http2)

    def _at_inbound(self) -> tuple[Mesh, Call]:
        """At the published address of a member: in plaintext, with TLS of its own, or the mesh's."""
        spec = self.spec
        name, port = host_port(spec.at, 9080)
        workload = self.world.workload(name)
        mesh = self.world.sidecar(name)
        tls = _tls(spec)
        if spec.tls == "mesh":
            sender = self.world.sidecar(spec.sender)
            server_name = (
                spec.sni or f"outbound_.{port}_._.{workload.service}.{workload.namespace}.svc.cluster.local"
            )
            tls = {
                "tls": True,
                "server_name": server_name,
                "alpn": spec.alpn or ("retia-l4",),
                "identity": sender.proxy.identity,
            }
            port = 15006
        if not spec.method:
            call = tcp_call(workload.published_address, port, listener="inbound", **tls)  # type: ignore[arg-type]
            return mesh, call
        call = http_call(
            spec.method,
            spec.url,
            address=workload.published_address,
            listener="inbound",
            headers=spec.headers,
            body_bytes=len(spec.body),
            **tls,
        )
        return mesh, _as_http2(_dial(call, workload.published_address, port), spec.http2)

    # -- what comes of it -----------------------------------------------------------------------------------

    def _add(self, found: Outcome, path: Path, share: float) -> None:
        """Shares, what the other sides see, and what the proxy itself answers."""
        if path.refused and not found.refused:
            found.refused = path.refused
        for destination in path.destinations:
            if destination.next is not None:
                part = destination.share * share
                inner = Outcome()
                self._add(inner, destination.next, 1.0)
                for label, each in inner.shares.items():
                    found.shares[label] = found.shares.get(label, 0.0) + each * part
                found.seen.update(inner.seen)
                found.refused = found.refused or inner.refused
                continue
            self._add_destination(found, destination, share)

    def _add_destination(self, found: Outcome, destination: Destination, share: float) -> None:
        if not destination.exists:
            status = destination.missing_status
            found.statuses[status] = found.statuses.get(status, 0.0) + share * destination.share
            return
        for endpoint, part in spread(destination):
            label = self._label(endpoint, destination)
            refusal = self._refused_there(destination, endpoint)
            if refusal:
                found.refused = refusal
                continue
            found.shares[label] = found.shares.get(label, 0.0) + part * destination.share * share
            tls = endpoint.tls
            found.seen[label] = Seen(
                destination.method,
                destination.path,
                destination.host,
                dict(destination.headers),
                tls.server_name if tls is not None else "",
                ",".join(tls.alpn) if tls is not None else "",
            )
            response = destination.response_edits.applied(dict(self.spec.upstream.headers))
            found.response_headers.update(response)

    def _label(self, endpoint: Endpoint, destination: Destination) -> str:
        if destination.cluster.startswith("inbound|"):
            name, _ = host_port(self.spec.at, 9080)
            return self.world.label_of(self.world.workload(name).published_address)
        return self.world.label_of(endpoint.address)

    def _refused_there(self, destination: Destination, endpoint: Endpoint) -> str:
        """Why the proxy at the endpoint closes the connection; empty: it doesn't, or there is none."""
        ip, _, _port = endpoint.address.rpartition(":")
        workload = next(
            (w for w in self.world.workloads.values() if w.published_address == ip and w.ports), None
        )
        if workload is None or (self.spec.at and not self.spec.at.startswith("gateway/")):
            return ""
        name = f"{workload.service}.{workload.namespace}/{workload.version}"
        callee = self.world.sidecar(name)
        call = arriving(destination, self.call, endpoint, identity=self.mesh.proxy.identity)
        return explain(_lookup(callee), call).refused

    def _settle(self, found: Outcome, path: Path) -> None:
        """Status, attempts and mirrors."""
        if path.answer is not None:
            found.status = path.answer.status
            found.response_headers.update(path.answer.headers)
            found.body = path.answer.body
            if path.answer.location:
                found.response_headers["location"] = path.answer.location
            elif self._is_grpc():
                found.grpc_status, found.status = _GRPC_OF.get(found.status, _GRPC_UNKNOWN), 200
        elif self.spec.method and not found.refused:
            self._answer(found, path)
        elif found.refused and path.destinations and self.spec.method and not path.refused:
            # A peer that closes the connection is an answer of the caller's proxy.
            found.status, found.refused = 503, ""
            found.shares.clear()
        if found.statuses:
            rest = 1 - sum(found.statuses.values())
            found.statuses[found.status] = found.statuses.get(found.status, 0.0) + rest
        fault = path.fault
        if fault is not None and 0 < fault.abort_share < 1 and fault.status is not None:
            found.statuses = {fault.status: fault.abort_share, found.status: 1 - fault.abort_share}
        if fault is not None and fault.grpc_status is not None and fault.abort_share == 1:
            found.grpc_status, found.status = fault.grpc_status, 200
            found.shares.clear()
        for mirror in path.mirrors:
            self._mirror(found, mirror.cluster, mirror.share)

    def _answer(self, found: Outcome, path: Path) -> None:
        """The status that comes back, with retries and timeouts."""
        upstream, retry = self.spec.upstream, path.retry
        attempts, status = 1, upstream.status
        retried = retry is not None and _retries_on(retry.on, retry.statuses, upstream.status)
        if upstream.status >= 400 and upstream.fail:
            more = min(upstream.fail, retry.attempts) if retried and retry is not None else 0
            attempts = 1 + more
            status = 200 if more >= upstream.fail else upstream.status
        elif upstream.status >= 400 and retried and retry is not None:
            attempts = 1 + retry.attempts
        limits = [path.timeout_s or 0.0]
        if retry is not None:
            limits.append(retry.per_try_timeout_s or 0.0)
        if upstream.delay_s and any(0 < limit < upstream.delay_s for limit in limits):
            status = 504
            each_s = (retry.per_try_timeout_s or 0.0) if retry is not None else 0.0
            if retry is not None and 0 < each_s < upstream.delay_s and _ON_TIMEOUT & set(retry.on.split(",")):
                attempts = 1 + retry.attempts
            found.response_headers.clear()
        found.status = status
        found.attempts = attempts
        if self._is_grpc():
            found.grpc_status = 0

    def _is_grpc(self) -> bool:
        return dict(self.spec.headers).get("content-type") == "application/grpc"

    def _mirror(self, found: Outcome, cluster: str, share: float) -> None:
        from retia.explain.clusters import find_cluster

        destination = find_cluster(_lookup(self.mesh), cluster, 1.0, self.call).destination
        for endpoint, part in spread(destination):
            label = self.world.label_of(endpoint.address)
            found.mirrored[label] = found.mirrored.get(label, 0.0) + part * share


def _joined(parts: list[tuple[float, Outcome]], path: Path, world: Simulated) -> Outcome:
    """What becomes of many such calls, in shares; what has no share is as in the most frequent."""
    parts = sorted(parts, key=lambda part: -part[0])
    most = parts[0][1]
    found = replace(most, path=path, labels=world.label_of, shares={}, statuses={}, mirrored={}, seen={})
    for share, each in parts:
        statuses = each.statuses or {each.status: 1.0}
        for mine, theirs in (
            (found.shares, each.shares),
            (found.statuses, statuses),
            (found.mirrored, each.mirrored),
        ):
            for key, part in theirs.items():
                mine[key] = mine.get(key, 0.0) + share * part  # type: ignore[index, attr-defined]
        found.seen.update(each.seen)
    return found


def listener_at(mesh: Mesh, port: int, *, udp: bool = False) -> str:
    """The listener of a gateway at a port (as objects say it, where it is bound elsewhere); empty: none."""
    bound = dict(mesh.proxy.edge_ports).get(port, port)
    for name in mesh.listed(TypeUrl.LISTENER):
        socket = mesh.listener(name).address.socket_address
        if socket.port_value == bound and (socket.protocol == 1) is udp:
            return name
    return f"(nothing at {port})"


def spread(destination: Destination) -> list[tuple[Endpoint, float]]:
    """The endpoints of the most preferred priority that has healthy ones, with their shares."""
    return [(e, e.share) for e in destination.endpoints if e.share > 0]


def _retries_on(conditions: str, statuses: tuple[int, ...], status: int) -> bool:
    for condition in conditions.split(","):
        if status in _RETRIABLE.get(condition.strip(), ()):
            return True
        if condition.strip() == "retriable-status-codes" and status in statuses:
            return True
    return False


def _lookup(mesh: Mesh):  # type: ignore[no-untyped-def]
    return from_bytes(lambda name: mesh.get(name).message)


def _tls(spec: CallSpec) -> dict[str, object]:
    if spec.sni or spec.tls in ("foreign", "mutual"):
        alpn = spec.alpn
        return {"tls": True, "server_name": spec.sni, "alpn": alpn, "silent": spec.silent}
    return {"silent": True} if spec.silent else {}


def _as_http2(call: Call, http2: bool) -> Call:
    if not http2 or call.request is None:
        return call
    return Call(call.connection, replace(call.request, http2=True))


def _dial(call: Call, address: str, port: int) -> Call:
    return Call(replace(call.connection, address=address, port=port), call.request)
