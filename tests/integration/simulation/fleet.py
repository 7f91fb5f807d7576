"""Runs cases: stages the other sides, tells the proxies, makes the calls and says what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from retia.explain.calls import outbound_listener
from retia.model.ids import service_host
from retia.model.mesh import Protocol, Proxy
from retia.xds.stream import Nacked
from tests.integration.simulation import clients
from tests.integration.simulation.clients import Entry, Reply
from tests.integration.simulation.proxies import Running
from tests.integration.simulation.upstreams import MESH_PORT, REQUEST_ID, Names, Place, Upstreams
from tests.simulation.case import CallSpec, Case
from tests.simulation.keys import keys
from tests.simulation.meshes import Net, Simulated, dialled, host_port
from tests.simulation.outcome import Outcome, Seen, complaints
from tests.support.waiting import until
from tests.support.world import Mesh

PORTS = {"outbound-http": 15001, "outbound-auto": 15002, "outbound-tcp": 15003, "explicit": 15009}
SHIFT = 20000
"""Added to a gateway's ports below 1024."""
SPLIT_CALLS = 120
FEW = 3
"""Calls where several destinations may answer but no shares are expected."""
MIRROR_S = 1.0
"""How long copies are waited for."""
ATTEMPTS = 3
"""How often a call is made that doesn't give what is expected: what was acknowledged reaches Envoy's worker a
moment later."""


class Fleet:
    """One client's Envoy and one gateway's, and the servers; several runs on one host don't meet."""

    def __init__(self, folder: Path) -> None:
        number = 70 + os.getpid() % 150
        self.net = Net(f"127.{number}.0", f"127.{number}.6", f"127.{number}.4", outside=f"127.{number}")
        self.client_address = f"127.{number}.1.1"
        self.dns = (f"127.{number}.5.1", 15353)
        self.keys = keys()
        self.upstreams = Upstreams(self.keys)
        self.names = Names()
        self.client = Running(folder, "c", self.dns)
        self.gateway = Running(folder, "g", self.dns)
        self.inbound = Running(folder, "i", self.dns)
        self.inbound_addresses = f"127.{number}.7"
        self._calls = 0
        self._told: dict[str, Proxy] = {}
        self._case: Case | None = None

    async def open(self) -> None:
        await self.names.open(*self.dns)

    async def close(self) -> None:
        await self.client.stop()
        await self.gateway.stop()
        await self.inbound.stop()
        await self.upstreams.close()

    async def run(self, case: Case) -> AsyncIterator[tuple[CallSpec, Outcome, list[str]]]:
        """Each call with what became of it and what differs from the expectation."""
        world = Simulated(case, self.net)
        await self._stage(world)
        self._told, self._case = {}, case
        for call in case.calls:
            if "real" not in call.only:
                continue
            call = self._reachable(call)
            outcome, found = Outcome(), ["not made"]
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(0.1 * attempt)
                outcome = await self._call(world, call)
                found = complaints(call, outcome)
                if not found:
                    break
            yield call, outcome, found

    def _reachable(self, call: CallSpec) -> CallSpec:
        """The call with addresses that exist here."""
        put = self.net.put
        expect = yaml.safe_load(put(yaml.safe_dump(dict(call.expect))))
        headers = tuple((n, put(v)) for n, v in call.headers)
        made = replace(call, url=put(call.url), connect=put(call.connect), dial=put(call.dial))
        return replace(made, expect=expect, headers=headers)

    # -- the scene ------------------------------------------------------------------------------------------

    async def _stage(self, world: Simulated) -> None:
        places: dict[tuple[str, int], Place] = {}
        trust_domain = world.settings.trust_domain
        plain = {(m.name, m.namespace) for m in world.case.members if m.plain}
        for workload in world.workloads.values():
            if not workload.ports:
                continue
            label = world.labels[workload.published_address]
            identity = f"spiffe://{trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}"
            for port in workload.ports:
                places[(workload.published_address, port.number)] = Place(label)
            if (workload.service, str(workload.namespace)) not in plain:
                places[(workload.published_address, MESH_PORT)] = Place(label, identity)
        for each in world.case.outside:
            address, port = host_port(self.net.put(each.address))
            places[(address, port)] = Place(each.name, tls_name=(each.host or each.name) if each.tls else "")
        self.names.hosts = {
            o.host: host_port(self.net.put(o.address))[0] for o in world.case.outside if o.host
        }
        await self.upstreams.stage(places)

    async def _tell(self, running: Running, mesh: Mesh) -> None:
        if self._told.get(running.name) == mesh.proxy:
            return
        await running.tell(mesh.snapshot, mesh.proxy, self.keys.secrets(mesh.proxy.identity))
        self._told[running.name] = mesh.proxy
        nacks = [str(n) for n in running.teller.nacks]
        assert not nacks, f"Envoy refuses what was generated: {nacks}"

    # -- one call -------------------------------------------------------------------------------------------

    async def _call(self, world: Simulated, call: CallSpec) -> Outcome:
        entry, mesh = await self._entry(world, call)
        self.upstreams.forget()
        self.upstreams.behaviour = call.upstream
        count = call.times or self._times(call)
        tasks = [self._once(entry, call, mesh) for _ in range(count)]
        replies: list[Reply | dict[str, Any]] = []
        for start in range(0, count, 10):
            replies += await asyncio.gather(*tasks[start : start + 10])
        nacks = [str(n) for n in self._nacks()]
        assert not nacks, f"Envoy refuses what was generated: {nacks}"
        if "mirror" in call.expect:
            await self._mirrored(call, count)
        return self._outcome(call, replies, count)

    def _nacks(self) -> list[Nacked]:
        return [n for each in (self.client, self.gateway, self.inbound) for n in each.teller.nacks]

    def _times(self, call: CallSpec) -> int:
        status = call.expect.get("status")
        if "split" in call.expect or isinstance(status, dict):
            return SPLIT_CALLS
        mirror = call.expect.get("mirror")
        if isinstance(mirror, dict) and any(0 < v < 100 for v in mirror.values()):
            return SPLIT_CALLS
        return 1

    async def _entry(self, world: Simulated, call: CallSpec) -> tuple[Entry, Mesh]:
        if call.at.startswith("gateway/"):
            return await self._at_gateway(world, call)
        if call.at:
            return await self._at_inbound(call)
        mesh = world.sidecar(
            call.sender,
            outbound_address=self.client_address,
            outbound_http_port=PORTS["outbound-http"],
            outbound_auto_port=PORTS["outbound-auto"],
            outbound_tcp_port=PORTS["outbound-tcp"],
            explicit_port=PORTS["explicit"] if call.explicit else 0,
            inbound_address="",
        )
        await self._tell(self.client, mesh)
        if call.explicit:
            return Entry(self.client_address, PORTS["explicit"]), mesh
        where = call.dial or call.connect or urlsplit(call.url).netloc
        host, port = host_port(where, 443 if call.url.startswith("https") else 80)
        address, protocol = dialled(world, mesh, host, port)
        listener = outbound_listener(protocol or Protocol.TCP)
        source = mesh.proxy.app_address
        announce = clients.announce(source, address, port)
        return Entry(self.client_address, PORTS[listener], announce), mesh

    async def _at_inbound(self, call: CallSpec) -> tuple[Entry, Mesh]:
        """At a real inbound side, whose application is one of the servers. Its published address is another
        one than the servers have, which stand in for the proxies of all members."""
        assert self._case is not None
        world = Simulated(self._case, replace(self.net, published=self.inbound_addresses))
        name, port = host_port(call.at, 9080)
        workload = world.workload(name)
        label = world.labels[workload.published_address]
        places = {(workload.app_address, p.app_port): Place(label) for p in workload.ports}
        await self.upstreams.stage(self.upstreams.places | places)
        mesh = world.sidecar(name, outbound_http_port=0, outbound_auto_port=0, outbound_tcp_port=0)
        await self._tell(self.inbound, mesh)
        entry = Entry(workload.published_address, port)
        if call.tls == "mesh":
            sender = world.sidecar(call.sender).proxy
            host = service_host(workload.service, workload.namespace)
            context = self.keys.client(list(call.alpn) or ["retia-l4"], sender.identity)
            named = call.sni or f"outbound_.{port}_._.{host}"
            entry = Entry(workload.published_address, MESH_PORT, tls=context, server_name=named)
        elif call.tls == "foreign":
            entry = replace(entry, tls=self.keys.client(list(call.alpn)), server_name=call.sni)
        return entry, mesh

    async def _at_gateway(self, world: Simulated, call: CallSpec) -> tuple[Entry, Mesh]:
        name, port = host_port(call.at.removeprefix("gateway/"))
        numbers = tuple((n, n + SHIFT) for n in range(1, 1024))
        mesh = world.gateway(name, edge_ports=numbers)
        await self._tell(self.gateway, mesh)
        bound = dict(numbers).get(port, port)
        entry = Entry(mesh.proxy.edge_address, bound)
        if call.url.startswith("https") or call.tls in ("foreign", "mutual"):
            host = host_port(urlsplit(call.url).netloc)[0] if call.url else ""
            alpn = list(call.alpn) or (["h2"] if call.http2 else ["http/1.1"])
            identity = "client.example" if call.tls == "mutual" else ""
            entry = replace(entry, tls=self.keys.client(alpn, identity), server_name=call.sni or host)
        return entry, mesh

    async def _once(self, entry: Entry, call: CallSpec, mesh: Mesh) -> Reply | dict[str, Any]:
        if not call.method:
            if entry.tls is not None:
                return await clients.raw(entry, b"who is there?\n")
            if call.redis:
                return await clients.redis(entry, call.redis)
            hello = b"" if call.silent else b"who is there?\n"
            if call.sni:
                hello = clients.client_hello(call.sni, call.alpn)
            return await clients.raw(entry, hello)
        self._calls += 1
        headers = [(n, v) for n, v in call.headers if n.lower() != "host"]
        headers.append((REQUEST_ID, str(self._calls)))
        parts = urlsplit(call.url)
        host = next((v for n, v in call.headers if n.lower() == "host"), parts.netloc)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = call.body.encode()
        known = mesh.proxy.kind.value == "sidecar" and not call.http2
        http2 = call.http2 or (known and self._speaks_http2(mesh, parts.netloc))
        if http2:
            lower = [(n.lower(), v) for n, v in headers]
            return await clients.http2(entry, call.method, path, host, lower, body, parts.scheme)
        return await clients.http1(
            entry, call.method, call.url if call.explicit else path, host, headers, body
        )

    def _speaks_http2(self, mesh: Mesh, netloc: str) -> bool:
        """Whether a program would speak HTTP/2 to that port, because it is declared so."""
        del mesh, netloc
        return False

    async def _mirrored(self, call: CallSpec, count: int) -> None:
        """Copies come a moment later."""
        mirror = call.expect["mirror"]
        whole = not isinstance(mirror, dict) or all(v == 100 for v in mirror.values())
        wanted = count * (1 + (len(mirror) if not isinstance(mirror, str) else 1)) if whole else count
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(self.upstreams.records) >= wanted, MIRROR_S)
        await asyncio.sleep(0.05)  # for a copy too many

    # -- what became of it ----------------------------------------------------------------------------------

    def _outcome(self, call: CallSpec, replies: list[Reply | dict[str, Any]], count: int) -> Outcome:
        found = Outcome(count=count)
        statuses: Counter[int] = Counter()
        for reply in replies:
            if isinstance(reply, dict):
                self._bytes_outcome(found, call, reply)
                continue
            if reply.closed:
                found.refused = reply.closed
                continue
            statuses[reply.status] += 1
            found.response_headers.update(reply.headers)
            found.body = reply.body.decode(errors="replace")
            if "grpc-status" in reply.headers:
                found.grpc_status = int(reply.headers["grpc-status"])
        found.statuses = {s: float(n) for s, n in statuses.items()}
        found.status = statuses.most_common(1)[0][0] if statuses else 0
        if call.method:
            self._requests_outcome(found, call, replies)
        return found

    def _bytes_outcome(self, found: Outcome, call: CallSpec, reply: dict[str, Any]) -> None:
        if not reply:
            found.refused = "the connection was closed"
            return
        label = reply["label"]
        found.shares[label] = found.shares.get(label, 0) + 1
        found.seen[label] = Seen(
            method=reply.get("method", ""),
            path=reply.get("path", ""),
            server_name=reply["server_name"],
            alpn=reply["alpn"],
        )
        if call.redis:
            answered = Counter(r.label for r in self.upstreams.records)
            answered[label] -= int(found.shares[label])
            found.mirrored = {name: float(n) for name, n in answered.items() if n > 0}

    def _requests_outcome(self, found: Outcome, call: CallSpec, replies: list[Any]) -> None:
        """Who answered, who got copies, and how many attempts there were."""
        own = 0
        for record in self.upstreams.records:
            shadow = _is_shadow(record.seen.host)
            if shadow:
                found.mirrored[record.label] = found.mirrored.get(record.label, 0) + 1
                continue
            own += 1
            found.seen[record.label] = replace(
                record.seen, headers={n: v for n, v in record.seen.headers.items() if n != REQUEST_ID}
            )
        answered = Counter(
            record.label
            for record in {r.call: r for r in self.upstreams.records if not _is_shadow(r.seen.host)}.values()
        )
        found.shares = {label: float(n) for label, n in answered.items()}
        found.attempts = own / max(1, len(replies))
        del call


def _is_shadow(host: str) -> bool:
    """Envoy marks the host of copies."""
    return host.partition(":")[0].endswith("-shadow")
