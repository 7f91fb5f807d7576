"""Capture on a real kernel: what programs under it see, and what strangers do not get."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from retia.model.mesh import Protocol
from retia.node.errors import CaptureError, InstanceBusy
from retia.node.listening import fetch_listeners
from tests.integration.node.conftest import SAY, Stage, Workload

pytestmark = pytest.mark.privileged

SHORT_S = 0.4
VIP = "240.240.7.9"

NAMES = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
s.settimeout(3)
s.connect((sys.argv[1], int(sys.argv[2])))
print(s.getpeername()[:2], s.getsockname()[0])
"""


@pytest.fixture
def pair(stage: Stage) -> tuple[Workload, Workload]:
    return stage.workload(1), stage.workload(2)


@pytest.fixture
def host_service() -> Iterator[tuple[str, int]]:
    """A service of the host on 127.0.0.1, outside the mesh."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"host")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


class TestListeners:
    """bind(): any number of instances on one port, each its own."""

    @pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:0.0.0.0"])
    def test_two_instances_share_a_port(self, pair: tuple[Workload, Workload], bind: str) -> None:
        one, two = pair
        one.serve(22080, "one", bind)
        two.serve(22080, "two", bind)

        assert one.proxy.ask(one.app, 22080) == "one"
        assert two.proxy.ask(two.app, 22080) == "two"

    @pytest.mark.parametrize("localhost", ["127.0.0.1", "127.0.1.1", "0.0.0.0", "::1", "::ffff:127.0.0.1"])
    def test_own_localhost_is_ones_own(self, pair: tuple[Workload, Workload], localhost: str) -> None:
        one, two = pair
        one.serve(22080, "one", "::")
        two.serve(22080, "two", "0.0.0.0")

        assert one.inside.ask(localhost, 22080) == "one"
        assert two.inside.ask(localhost, 22080) == "two"

    def test_own_host_address_is_ones_own(self, stage: Stage, pair: tuple[Workload, Workload]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("198.51.100.1", 9))
            except OSError:
                pytest.skip("this host has no address but loopback")
            address = probe.getsockname()[0]
        one, two = pair
        one.serve(22080, "one")

        assert one.inside.ask(address, 22080) == "one"
        assert two.inside.ask(address, 22080) == "ConnectionRefusedError"

    @pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1", "::", "::1"])
    def test_bound_address_is_shown_as_asked(self, pair: tuple[Workload, Workload], bind: str) -> None:
        code = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], 22080)); print(s.getsockname()[:2]); s.listen(); print(s.getsockname()[:2])
"""
        assert pair[0].inside.python(code, bind).splitlines() == [f"('{bind}', 22080)"] * 2

    @pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1", "::"])
    def test_port_0_gives_a_port_that_works(
        self, stage: Stage, pair: tuple[Workload, Workload], bind: str
    ) -> None:
        one, two = pair
        server = one.inside.start(sys.executable, "-IS", SAY, bind, "0", "one", "{}")
        assert server.stdout is not None
        _, address, port = server.stdout.readline().split()

        assert address == bind
        assert one.inside.ask("127.0.0.1", int(port)) == "one"
        assert stage.stranger.ask("127.0.0.1", int(port), SHORT_S) == "timeout"
        assert two.inside.ask("127.0.0.1", int(port), SHORT_S) == "timeout"

    def test_client_that_binds_to_port_0_reaches_the_host(
        self, pair: tuple[Workload, Workload], host_service: tuple[str, int]
    ) -> None:
        code = """
import socket, sys
s = socket.socket(); s.settimeout(3); s.bind(("", 0)); s.connect(("127.0.0.1", int(sys.argv[1])))
s.send(b"x"); print(s.recv(9).decode())
"""
        assert pair[0].inside.python(code, str(host_service[1])) == "host"

    def test_reload_and_reuse(self, pair: tuple[Workload, Workload]) -> None:
        """SO_REUSEPORT side by side, a bind again after close, a listener handed to a child."""
        one, _ = pair
        one.serve(22080, "one", reuseport="1")
        second = one.serve(22080, "one", reuseport="1")
        second.kill()
        second.wait(timeout=10)
        one.serve(22080, "one", reuseport="1")
        code = """
import os, socket
for turn in range(3):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 22081)); s.listen()
    if os.fork() == 0:
        c, _ = s.accept(); c.recv(9); c.sendall(b"child"); os._exit(0)
    c = socket.create_connection(("localhost", 22081)); c.send(b"x"); assert c.recv(9) == b"child"
    os.wait(); c.close(); s.close()
print("done")
"""
        assert one.proxy.ask(one.app, 22080) == "one"
        assert one.inside.python(code) == "done"

    def test_port_in_use_is_said_to_be(self, pair: tuple[Workload, Workload]) -> None:
        one, _ = pair
        one.serve(22080, "one")
        code = """
import socket
try: socket.socket().bind(("", 22080))
except OSError as e: print(e.errno)
"""
        assert one.inside.python(code) == "98"

    def test_user_may_listen_below_1024(self, pair: tuple[Workload, Workload]) -> None:
        code = 'import os, socket; os.setuid(65534); socket.socket().bind(("", 80)); print("ok")'
        assert pair[0].inside.python(code) == "ok"

    def test_dual_servers_with_v6only(self, pair: tuple[Workload, Workload]) -> None:
        """What asyncio and nginx do: 0.0.0.0 and ``::`` with IPV6_V6ONLY, in two instances."""
        for number, workload in enumerate(pair):
            workload.serve(22080, f"v4-{number}", "0.0.0.0")
            workload.serve(22080, f"v6-{number}", "::", v6only="1")
        for number, workload in enumerate(pair):
            assert workload.proxy.ask(workload.app, 22080) == f"v4-{number}"
            assert workload.inside.ask("127.0.0.1", 22080) == f"v4-{number}"
            assert workload.inside.ask("::1", 22080) == f"v6-{number}"

    def test_v6only_listener_is_shown_as_asked_and_hidden(
        self, stage: Stage, pair: tuple[Workload, Workload]
    ) -> None:
        code = """
import socket, sys
s = socket.socket(socket.AF_INET6); s.setsockopt(41, 26, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("::", 22080)); s.listen()
print(s.getsockname()[:2], flush=True)
print(s.accept())
"""
        before = {port for address, port in fetch_listeners().pairs if address == "::"}
        server = pair[0].inside.start(sys.executable, "-IS", "-c", code)
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "('::', 22080)"
        ports = [port for address, port in fetch_listeners().pairs if address == "::" and port not in before]
        assert ports
        assert [stage.stranger.ask("::1", port, SHORT_S) for port in ports] == ["timeout"] * len(ports)

    def test_open_port_stays_where_it_is(self, stage: Stage) -> None:
        workload = stage.workload(3, open_ports=(22999,))
        workload.serve(22999, "debugger", "127.0.0.1")

        assert stage.stranger.ask("127.0.0.1", 22999) == "debugger"
        assert workload.inside.ask("127.0.0.1", 22999) == "debugger"


class TestGuard:
    """Who may reach whom."""

    def test_strangers_do_not_reach_an_app_address(
        self, stage: Stage, pair: tuple[Workload, Workload]
    ) -> None:
        one, two = pair
        one.serve(22080, "one")

        assert stage.stranger.ask(one.app, 22080, SHORT_S) == "timeout"
        assert two.inside.ask(one.app, 22080, SHORT_S) == "timeout"
        assert two.proxy.ask(one.app, 22080, SHORT_S) == "timeout"
        assert one.inside.ask(one.app, 22080) == "one"
        assert one.proxy.ask(one.app, 22080) == "one"

    def test_the_agent_reaches_everybody(self, stage: Stage, pair: tuple[Workload, Workload]) -> None:
        pair[0].serve(22080, "one")
        assert stage.place(stage.capture.agent_cgroup).ask(pair[0].app, 22080) == "one"

    def test_a_shared_proxy_reaches_whom_it_serves(
        self, stage: Stage, pair: tuple[Workload, Workload]
    ) -> None:
        one, two = pair
        third = stage.workload(3)
        for workload in (one, two, third):
            workload.serve(22080, workload.id)
        node = stage.place(stage.capture.proxy_cgroup("node", serves=(one.id, two.id)))

        assert node.ask(one.app, 22080) == one.id
        assert node.ask(two.app, 22080) == two.id
        assert node.ask(third.app, 22080, SHORT_S) == "timeout"

    def test_outbound_listeners_take_captured_connections_only(
        self, stage: Stage, pair: tuple[Workload, Workload]
    ) -> None:
        one, two = pair
        one.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)

        assert one.inside.ask(VIP, 80) == f"15001 {VIP}:80 {one.app}"
        assert stage.stranger.ask(one.app, 15001, SHORT_S) == "timeout"
        assert two.inside.ask(one.app, 15001, SHORT_S) == "timeout"
        assert one.proxy.ask(one.app, 15001, SHORT_S) == "timeout"
        assert one.inside.ask(one.app, 15001) == "PermissionError"

    def test_a_stranger_that_takes_the_workloads_address_is_still_one(
        self, stage: Stage, pair: tuple[Workload, Workload]
    ) -> None:
        """Even with a source address and port that the workload has just used."""
        one, _ = pair
        one.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)
        code = """
import socket, struct
s = socket.socket(); s.settimeout(3); s.connect(("240.240.7.9", 80))
s.send(b"x"); s.recv(99); print(s.getsockname()[1])
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
"""
        port = one.inside.python(code)
        forge = """
import socket, sys
s = socket.socket(); s.settimeout(0.4); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2])))
try: s.connect((sys.argv[1], 15001)); print("connected")
except TimeoutError: print("timeout")
"""
        assert stage.stranger.python(forge, one.app, port) == "timeout"

    def test_published_addresses_are_for_everybody(
        self, stage: Stage, pair: tuple[Workload, Workload]
    ) -> None:
        one, two = pair
        proxy = one.proxy.start(sys.executable, "-IS", SAY, one.published, "22080", "in", "{}")
        assert proxy.stdout is not None
        assert proxy.stdout.readline().startswith("ready")
        assert stage.stranger.ask(one.published, 22080) == "in"
        assert two.inside.ask(one.published, 22080) == "in"


class TestConnect:
    """connect(): to the proxy, and the application does not notice."""

    @pytest.mark.parametrize(
        ("protocol", "listener"),
        [
            (Protocol.HTTP, 15001),
            (Protocol.HTTP2, 15001),
            (Protocol.GRPC, 15001),
            (Protocol.AUTO, 15002),
            (Protocol.TCP, 15003),
            (Protocol.TLS, 15003),
        ],
    )
    def test_protocol_chooses_the_listener(
        self, stage: Stage, pair: tuple[Workload, Workload], protocol: Protocol, listener: int
    ) -> None:
        one, two = pair
        for workload in pair:
            workload.start_proxy()
        stage.capture.set_destination(VIP, 8080, protocol)

        assert one.inside.ask(VIP, 8080) == f"{listener} {VIP}:8080 {one.app}"
        assert two.inside.ask(f"::ffff:{VIP}", 8080) == f"{listener} {VIP}:8080 {two.app}"

    def test_peer_is_shown_as_asked(self, stage: Stage, pair: tuple[Workload, Workload]) -> None:
        one, _ = pair
        one.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)

        assert one.inside.python(NAMES, VIP, "80") == f"('{VIP}', 80) {one.app}"
        assert one.inside.python(NAMES, f"::ffff:{VIP}", "80") == f"('::ffff:{VIP}', 80) ::ffff:{one.app}"

    def test_endpoint_addresses_are_captured_too(self, stage: Stage, pair: tuple[Workload, Workload]) -> None:
        one, two = pair
        one.start_proxy()
        stage.capture.set_destination(two.published, 9080, Protocol.TCP)
        assert one.inside.ask(two.published, 9080) == f"15003 {two.published}:9080 {one.app}"

    def test_non_blocking_connect(self, stage: Stage, pair: tuple[Workload, Workload]) -> None:
        one, _ = pair
        one.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)
        code = """
import asyncio
async def main():
    r, w = await asyncio.wait_for(asyncio.open_connection("240.240.7.9", 80), 5)
    w.write(b"x"); print((await r.read()).decode(), w.get_extra_info("peername"))
asyncio.run(main())
"""
        assert one.inside.python(code) == f"15001 {VIP}:80 {one.app} ('{VIP}', 80)"

    def test_client_bound_beforehand_is_captured(self, stage: Stage, pair: tuple[Workload, Workload]) -> None:
        one, _ = pair
        one.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)
        code = """
import socket
s = socket.socket(); s.settimeout(3); s.bind(("", 0)); s.connect(("240.240.7.9", 80))
s.send(b"x"); print(s.recv(99).decode().rsplit(" ", 1)[0])
"""
        assert one.inside.python(code) == f"15001 {VIP}:80"

    def test_what_is_not_in_the_mesh_is_untouched(
        self, stage: Stage, pair: tuple[Workload, Workload], host_service: tuple[str, int]
    ) -> None:
        one, _ = pair
        one.start_proxy()
        one.serve(22080, "one")
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)
        address, port = host_service

        assert one.inside.ask(address, port) == "host"
        assert one.inside.ask(f"::ffff:{address}", port) == "host"
        assert one.inside.python(NAMES, address, str(port)) == f"('{address}', {port}) 127.0.0.1"
        assert one.inside.ask("127.0.0.1", 1) == "ConnectionRefusedError"

    def test_removed_destination_is_untouched(
        self, stage: Stage, pair: tuple[Workload, Workload], host_service: tuple[str, int]
    ) -> None:
        stage.capture.set_destination(*host_service, Protocol.HTTP)
        assert pair[0].inside.ask(*host_service) == "ConnectionRefusedError"
        assert stage.capture.remove_destination(*host_service)
        assert not stage.capture.remove_destination(*host_service)
        assert pair[0].inside.ask(*host_service) == "host"

    def test_a_cgroup_below_is_captured(self, stage: Stage, pair: tuple[Workload, Workload]) -> None:
        one, _ = pair
        one.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)
        assert one.inside.cgroup is not None
        below = one.inside.cgroup / "below" / "deeper"
        below.mkdir(parents=True)

        assert stage.place(below).ask(VIP, 80) == f"15001 {VIP}:80 {one.app}"

    def test_connection_that_is_closed_at_once_keeps_its_destination(
        self, stage: Stage, pair: tuple[Workload, Workload]
    ) -> None:
        one, _ = pair
        one.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)
        code = """
import socket
for _ in range(50):
    s = socket.socket(); s.settimeout(3); s.connect(("240.240.7.9", 80)); s.send(b"x"); s.shutdown(1)
    assert s.recv(99).startswith(b"15001 240.240.7.9:80"); s.close()
print("done")
"""
        assert one.inside.python(code) == "done"


class TestProxyAway:
    """No proxy, no traffic; unless the instance may do without."""

    def test_fails_closed(
        self, stage: Stage, pair: tuple[Workload, Workload], host_service: tuple[str, int]
    ) -> None:
        stage.capture.set_destination(*host_service, Protocol.HTTP)
        assert pair[0].inside.ask(*host_service) == "ConnectionRefusedError"

    def test_may_fail_open(
        self, stage: Stage, pair: tuple[Workload, Workload], host_service: tuple[str, int]
    ) -> None:
        one, two = pair
        stage.capture.set_destination(*host_service, Protocol.HTTP)
        stage.capture.set_destination(VIP, 80, Protocol.HTTP, fallback=host_service)
        stage.capture.set_fail_open(one.id, True)

        assert one.inside.ask(*host_service) == "host"
        assert one.inside.ask(VIP, 80) == "host"
        assert one.inside.python(NAMES, VIP, "80").startswith(f"('{VIP}', 80)")
        assert two.inside.ask(*host_service) == "ConnectionRefusedError"
        one.start_proxy()
        assert one.inside.ask(VIP, 80) == f"15001 {VIP}:80 {one.app}"
        stage.capture.set_fail_open(one.id, False)
        with pytest.raises(CaptureError, match="no captured instance"):
            stage.capture.set_fail_open("test/nobody", True)


DNS_SERVER = """
import socket, sys, selectors, struct
a = sys.argv[1]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind((a, 15053))
tcp = socket.create_server((a, 15053))
print("ready", flush=True)
def answer(query):
    end = query.index(b"\\0", 12) + 5
    name, kind = query[12:end], query[end - 4 : end - 2]
    head = query[:2] + b"\\x85\\x80\\0\\1" + (b"\\0\\1" if kind == b"\\0\\1" else b"\\0\\0") + b"\\0\\0\\0\\0"
    body = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x05\\0\\4" + socket.inet_aton("240.240.7.9")
    return head + name + (body if kind == b"\\0\\1" else b"")
s = selectors.DefaultSelector(); s.register(udp, 1); s.register(tcp, 1)
while True:
    for k, _ in s.select():
        if k.fileobj is udp:
            q, who = udp.recvfrom(4096); udp.sendto(answer(q), who)
        else:
            c, _ = tcp.accept()
            with c:
                c.settimeout(2); n = struct.unpack("!H", c.recv(2))[0]; r = answer(c.recv(n))
                c.sendall(struct.pack("!H", len(r)) + r)
"""

QUERY = r"""
import socket, struct, sys
query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7reviews\0\0\1\0\1"
server, way = (sys.argv[1], 53), sys.argv[2]
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
try:
    if way == "tcp":
        s = socket.socket(family); s.settimeout(3); s.connect(server)
        s.sendall(struct.pack("!H", len(query)) + query); reply = s.recv(4096)[2:]; who = s.getpeername()
    else:
        s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(float(sys.argv[3]))
        if way == "connect":
            s.connect(server); s.send(query); reply, who = s.recvfrom(4096)
            assert s.getpeername()[:2] == server
        elif way == "sendto":
            s.sendto(query, server); reply, who = s.recvfrom(4096)
        else:
            s.sendmsg([query], [], 0, server); reply, _, _, who = s.recvmsg(4096)
    print(socket.inet_ntoa(reply[-4:]), who[0], who[1])
except TimeoutError:
    print("timeout")
"""


class TestDns:
    """Port 53 goes to the agent, whichever server was asked."""

    @pytest.fixture
    def asked(self, stage: Stage) -> Workload:
        workload = stage.workload(1)
        server = stage.place(stage.capture.agent_cgroup).start(
            sys.executable, "-IS", "-c", DNS_SERVER, workload.app
        )
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "ready"
        return workload

    @pytest.mark.parametrize("way", ["connect", "sendto", "sendmsg", "tcp"])
    @pytest.mark.parametrize("server", ["192.0.2.53", "127.0.0.1", "::ffff:192.0.2.53"])
    def test_any_server_is_the_agent(self, asked: Workload, server: str, way: str) -> None:
        assert asked.inside.python(QUERY, server, way, "3") == f"{VIP} {server} 53"

    @pytest.mark.parametrize("way", ["connect", "tcp"])
    def test_ipv6_server_is_the_agent(self, asked: Workload, way: str) -> None:
        assert asked.inside.python(QUERY, "::1", way, "3") == f"{VIP} ::1 53"

    def test_libc_resolves(self, asked: Workload) -> None:
        code = 'import socket; print(socket.getaddrinfo("reviews.example", 80, type=1)[0][4][0])'
        assert asked.inside.python(code) == VIP

    def test_strangers_and_neighbours_get_no_answer(self, stage: Stage, asked: Workload) -> None:
        other = stage.workload(2)
        ask = QUERY.replace("53)", "15053)")
        assert asked.inside.python(ask, asked.app, "connect", "3").startswith(VIP)
        assert stage.stranger.python(ask, asked.app, "connect", str(SHORT_S)) == "timeout"
        assert other.inside.python(ask, asked.app, "sendto", str(SHORT_S)) == "timeout"
        assert stage.stranger.ask(asked.app, 15053, SHORT_S) == "timeout"

    def test_other_datagrams_are_untouched(self, asked: Workload) -> None:
        code = """
import socket
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(("127.0.0.1", 0)); a.settimeout(3)
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.connect(a.getsockname()); b.send(b"x")
print(a.recvfrom(9)[0].decode(), b.getpeername() == a.getsockname())
"""
        assert asked.inside.python(code) == "x True"

    def test_dns_can_be_left_alone(self, stage: Stage) -> None:
        workload = stage.workload(3, dns_port=0)
        code = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("127.0.0.1", 53)); print(s.getpeername())
"""
        assert workload.inside.python(code) == "('127.0.0.1', 53)"


class TestLife:
    """Instances come, change and go."""

    def test_adding_again_changes_the_address(self, stage: Stage) -> None:
        first = stage.workload(1)
        first.serve(22080, "old")
        moved = stage.workload(1, open_ports=(1,))
        assert moved.inside.cgroup == first.inside.cgroup
        assert moved.proxy.ask(moved.app, 22080) == "old"

    def test_busy_instance_is_not_removed(self, stage: Stage) -> None:
        workload = stage.workload(1)
        server = workload.serve(22080, "one")
        with pytest.raises(InstanceBusy) as busy:
            stage.capture.remove_instance(workload.id)
        assert server.pid in busy.value.pids
        assert workload.proxy.ask(workload.app, 22080) == "one"
        stage.capture.remove_instance(workload.id, kill=True)
        server.wait(timeout=10)
        assert stage.capture.instances() == {}
        assert stage.capture.app_address(workload.id) is None
        stage.capture.remove_instance(workload.id)

    def test_move_of_a_dead_process(self, stage: Stage) -> None:
        gone = stage.stranger.start("true")
        gone.communicate(timeout=10)
        with pytest.raises(ProcessLookupError):
            stage.capture.move(gone.pid, stage.capture.agent_cgroup)

    def test_meshes_side_by_side(self, stage: Stage, second_stage: Stage) -> None:
        here, there = stage.workload(1), second_stage.workload(1)
        for workload, text in ((here, "here"), (there, "there")):
            workload.serve(22080, text)
            workload.start_proxy()
        stage.capture.set_destination(VIP, 80, Protocol.HTTP)
        second_stage.capture.set_destination(VIP, 80, Protocol.TCP)

        assert here.app != there.app
        assert here.proxy.ask(here.app, 22080) == "here"
        assert there.proxy.ask(there.app, 22080) == "there"
        assert here.inside.ask(VIP, 80) == f"15001 {VIP}:80 {here.app}"
        assert there.inside.ask(VIP, 80) == f"15003 {VIP}:80 {there.app}"
        assert here.inside.ask(there.app, 22080, SHORT_S) == "timeout"

    def test_ten_thousand_destinations(self, stage: Stage) -> None:
        many = {(f"240.240.{n >> 8}.{n & 255}", 80): Protocol.HTTP for n in range(1, 10001)}
        assert stage.capture.replace_destinations(many) == 10000
        assert len(stage.capture.destinations()) == 10000
        del many["240.240.0.1", 80]
        many["240.240.0.2", 80] = Protocol.TCP
        assert stage.capture.replace_destinations(many) == 2
        assert len(stage.capture.destinations()) == 9999


def test_debugger_and_forks_work(stage: Stage) -> None:
    """A tracer inside the cgroup, children of children, exec: all captured as one workload."""
    workload = stage.workload(1)
    workload.start_proxy()
    stage.capture.set_destination(VIP, 80, Protocol.HTTP)
    code = """
import os, subprocess, sys, json
ask = "import socket; s = socket.create_connection(('240.240.7.9', 80), 3)"
ask += "; s.send(b'x'); print(s.recv(99).decode())"
print(subprocess.check_output(["sh", "-c", 'exec "$0" -IS -c "$1"', sys.executable, ask], text=True).strip())
"""
    assert workload.inside.python(code) == f"15001 {VIP}:80 {workload.app}"
    traced = """
import sys
def trace(frame, event, arg): return trace
sys.settrace(trace)
import socket
s = socket.create_server(("", 22080)); c = socket.create_connection(("localhost", 22080), 3)
print(c.getpeername()[1])
"""
    assert workload.inside.python(traced) == "22080"


def test_names_of_instances_survive_as_folders(stage: Stage) -> None:
    stage.workload(1)
    assert json.dumps(sorted(stage.capture.instances())) == '["test/w-1"]'
