"""Two hosts in one mesh: network namespaces on one wire, with a firewall that leaves two ports open."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from retia.cli.tour.client import Visitor
from retia.cli.tour.processes import wait_until
from tests.support.hosts import Host, Network, workloads
from tests.support.privileges import need_tool

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]

LEASE_S = 5.0
DOMAIN = "spiffe://cluster.local/ns/default/sa"
EVERYTHING = {"one": 2, "two": 2}
"""Instances by host."""
ENDPOINTS = {"left": 1, "right": 1, "both": 2}
HTTP_INBOUND = ("--annotation", "retia.dev/inbound=http")

SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: both}
spec:
  host: both
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: both}
spec:
  hosts: [both]
  http:
    - match: [{headers: {x-want: {exact: v1}}}]
      route: [{destination: {host: both, subset: v1}}]
    - match: [{headers: {x-want: {exact: v2}}}]
      route: [{destination: {host: both, subset: v2}}]
    - route: [{destination: {host: both}}]
"""


class Mesh:
    """Hosts ``one`` (with the controller) and ``two``; ``left`` and ``right`` each on one of them, ``both``
    with version v1 on the first and v2 on the second."""

    def __init__(self, one: Host, two: Host) -> None:
        self.one, self.two = one, two
        one.controller("--listen", one.address, "--lease", str(LEASE_S))
        if shutil.which("nft"):
            for host in (one, two):
                host.firewall(15012, 15443)
        one.join(one)
        two.join(one)
        one.run("left", "v1", *HTTP_INBOUND)
        two.run("right", "v1", *HTTP_INBOUND)
        one.run("both", "v1")
        two.run("both", "v2")
        assert wait_until(lambda: len(workloads(one)) == 4, 30), workloads(one)
        self.visitors = {host.name: host.visitor(f"visitor-{host.name}") for host in (one, two)}

    def host(self, name: str) -> Host:
        return self.one if name == "one" else self.two

    def hosts(self) -> dict[str, Any]:
        with self.one.client() as client:
            return {h.id: h for h in client.list_hosts()}

    def endpoints(self) -> dict[str, int]:
        """How many each service has that has any."""
        with self.one.client() as client:
            return {s.name: s.endpoints for s in client.list_services() if s.endpoints}

    def whole(self) -> bool:
        """Both hosts are connected, with everything that runs on them, and no endpoint is held back."""
        hosts = self.hosts()
        with self.one.client() as client:
            return (
                set(hosts) == {"one", "two"}
                and all(h.connected and h.lease == "valid" for h in hosts.values())
                and Counter(workloads(self.one).values()) == EVERYTHING
                and not client.status().registry_frozen
            )


@pytest.fixture(scope="module")
def started() -> Iterator[Mesh]:
    with Network("one", "two") as network:
        yield Mesh(*network.hosts)
    assert network.left == []


@pytest.fixture
def mesh(started: Mesh) -> Mesh:
    assert wait_until(started.whole, 30), started.one.command("hosts").stdout
    return started


def who(visitor: Visitor, count: int = 20, **more: Any) -> set[str]:
    """Who answers for ``both``; every call must be answered."""
    answers = visitor.many("http://both:8000/", count, **more)
    assert all(a.status == 200 for a in answers), Counter(str(a) for a in answers)
    return {str(a.json()["who"]) for a in answers}


# -- calls


@pytest.mark.parametrize(("caller", "service", "at"), [("one", "right", "two"), ("two", "left", "one")])
def test_http_between_hosts_is_mutual_tls_between_the_two_workloads(
    mesh: Mesh, caller: str, service: str, at: str
) -> None:
    answer = mesh.visitors[caller].http(f"http://{service}:8000/")
    assert answer.status == 200, str(answer)
    assert answer.json()["who"] == f"{service} on {at}"
    told = answer.json()["headers"]["x-forwarded-client-cert"]
    names = dict(re.findall(r"(By|URI)=([^;,\"]+)", told))
    assert names == {"By": f"{DOMAIN}/{service}", "URI": f"{DOMAIN}/visitor-{caller}"}


@pytest.mark.parametrize(("caller", "service", "at"), [("one", "right", "two"), ("two", "left", "one")])
def test_tcp_between_hosts_is_mutual_tls_through_the_one_port(
    mesh: Mesh, caller: str, service: str, at: str
) -> None:
    gateway = mesh.one.envoy(f"host/{at}")
    (instance,) = (w for w in workloads(mesh.one) if w.startswith(f"default/{service}-"))
    theirs = mesh.one.envoy(instance)

    def counted() -> tuple[int, int]:
        passed = gateway.counted("downstream_cx_total", containing="15443")
        return passed, theirs.counted("ssl.handshake", containing="listener.")

    before = counted()
    assert mesh.visitors[caller].tcp(service, 7000, "abc") == [f"hello from {service} on {at}", "ABC"]
    after = counted()
    assert after[0] > before[0], "the call did not come through the host gateway"
    assert after[1] > before[1], "the callee's proxy ended no TLS"
    assert theirs.counted("ssl.no_certificate", containing="listener.") == 0
    assert f"{DOMAIN}/{service}" in theirs.identities()


@pytest.mark.parametrize(("at", "service"), [("one", "left"), ("two", "right")])
def test_an_instances_own_address_means_that_of_the_callers_host(mesh: Mesh, at: str, service: str) -> None:
    """Both hosts give their instances the same loopback addresses."""
    with mesh.one.client() as client:
        (address,) = {e.address for e in client.get_service(service).endpoint_list}
        assert not [f for f in client.status().findings if f.code == "RT0311"]
    answer = mesh.visitors[at].http(f"http://{address}:8000/")
    assert (answer.status, answer.json().get("who")) == (200, f"{service} on {at}")


def test_the_firewall_leaves_only_the_two_ports_open(mesh: Mesh) -> None:
    need_tool("nft", "nftables")
    with mesh.two.inside(), socket.create_server((mesh.two.address, 9999)), mesh.one.inside():
        assert socket.create_connection((mesh.two.address, 15443), timeout=5)
        with pytest.raises(TimeoutError):
            socket.create_connection((mesh.two.address, 9999), timeout=1)


def test_a_stranger_at_the_gateway_gets_nothing(mesh: Mesh) -> None:
    with mesh.one.inside(), socket.create_connection((mesh.two.address, 15443), timeout=5) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nhost: right\r\n\r\n")
        stranger.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1000) == b""


def test_subsets_are_found_across_hosts(mesh: Mesh) -> None:
    (mesh.one.home / "subsets.yaml").write_text(SUBSETS)
    done = mesh.one.command("apply", "-f", str(mesh.one.home / "subsets.yaml"))
    assert done.returncode == 0, done.stderr
    for visitor in mesh.visitors.values():
        for version, at in (("v1", "both on one"), ("v2", "both on two")):
            want = {"x-want": version}
            assert wait_until(lambda v=visitor, w=want, a=at: who(v, 5, headers=w) == {a}, 10)  # type: ignore[misc]
            assert who(visitor, 20, headers=want) == {at}
        assert who(visitor, 40) == {"both on one", "both on two"}


# -- failures


def test_a_host_is_cut_off_and_comes_back(mesh: Mesh) -> None:
    visitor = mesh.visitors["one"]
    assert who(visitor, 40) == {"both on one", "both on two"}
    mesh.two.cut_off()
    try:
        # One of two hosts is more than 15 %: for one period nothing is withdrawn, and that is said.
        assert wait_until(lambda: mesh.hosts()["two"].lease == "held", LEASE_S + 5)
        assert mesh.endpoints() == ENDPOINTS, "withdrawn although held"
        with mesh.one.client() as client:
            status = client.status()
        assert (status.registry_frozen, status.registry_reason) == (
            True,
            f"1 of 2 hosts fell silent within {LEASE_S:g} s",
        )
        assert wait_until(lambda: set(mesh.hosts()) == {"one"}, LEASE_S + 5)
        assert mesh.endpoints() == {"left": 1, "both": 1}
        assert wait_until(lambda: settled(visitor), 20)
        assert who(visitor, 40) == {"both on one"}
    finally:
        mesh.two.reconnect()
    assert wait_until(mesh.whole, 40), mesh.one.command("hosts").stdout
    assert wait_until(lambda: who(visitor, 20) == {"both on one", "both on two"}, 10)
    assert mesh.visitors["two"].http("http://left:8000/").status == 200


def settled(visitor: Visitor) -> bool:
    answer = visitor.http("http://both:8000/", timeout_s=5)
    return answer.status == 200 and answer.json()["who"] == "both on one"


def test_a_restarted_controller_keeps_all_endpoints(mesh: Mesh) -> None:
    visitor = mesh.visitors["one"]
    mesh.one.stop("controller", signal.SIGKILL)
    assert who(visitor) == {"both on one", "both on two"}, "calls need no controller"
    mesh.one.controller("--listen", mesh.one.address, "--lease", str(LEASE_S))
    assert mesh.endpoints() == ENDPOINTS, "known before the first agent is back"
    with mesh.one.client() as client:
        assert client.status().registry_reason == "the controller has just started"
    assert who(visitor) == {"both on one", "both on two"}
    assert wait_until(mesh.whole, 30), mesh.one.command("hosts").stdout
    assert who(visitor) == {"both on one", "both on two"}
