"""Gateways with the real product: what strangers get, what they don't, what happens when secrets change."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from retia.agent import envoy
from retia.cli.tour.processes import wait_until
from retia.cli.tour.stage import Stage, free_port
from tests.support.certificates import Pair

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]

PROGRAM = """
import http.server, json, os, ssl, sys

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        if self.headers.get("upgrade") == "websocket":
            self.send_response(101)
            self.send_header("connection", "upgrade")
            self.send_header("upgrade", "websocket")
            self.end_headers()
            self.wfile.flush()
            self.wfile.write(self.rfile.readline().upper())
            self.close_connection = True
            return
        seen = {"who": os.environ["WHO"], "path": self.path, "headers": dict(self.headers)}
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Echo)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""

GREETER = """
import asyncio
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server

class Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data

class Greeter:
    async def greet(self, stream):
        await stream.send_message(b"hello " + await stream.recv_message())

    def __mapping__(self):
        return {"/test.Greeter/Greet": Handler(self.greet, Cardinality.UNARY_UNARY, bytes, bytes)}

async def main():
    server = Server([Greeter()], codec=Bytes())
    await server.start("0.0.0.0", 9000)
    await server.wait_closed()

asyncio.run(main())
"""

MESH = """
services:
  web:
    command: {python} echo.py 8000
    ports: [8000/http]
    environment: {{WHO: web}}
  greeter:
    command: {python} greeter.py
    ports: [9000/grpc]
  vault:
    command: {python} echo.py 8443 own.pem
    ports: [8443/tls]
    environment: {{WHO: vault}}
gateways:
  ingress:
    address: 127.0.0.1
    ports: {{80: {http}, 443: {https}}}
    http3: true
  egress:
    address: 127.0.0.1
    ports: {{80: {out}, 443: {unused}}}
"""

CONFIG = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [plain.example]
  - port: {number: 80, name: http-redirect, protocol: HTTP}
    hosts: [shop.example]
    tls: {httpsRedirect: true}
  - port: {number: 80, name: grpc-web, protocol: GRPC-WEB}
    hosts: [greeter.example]
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.example]
    tls: {mode: SIMPLE, credentialName: shop}
  - port: {number: 443, name: mutual, protocol: HTTPS}
    hosts: [staff.example]
    tls: {mode: MUTUAL, credentialName: staff, subjectAltNames: [alice.example]}
  - port: {number: 443, name: pass, protocol: TLS}
    hosts: [vault.example]
    tls: {mode: PASSTHROUGH}
  - port: {number: 443, name: shut, protocol: HTTPS}
    hosts: [shut.example]
    tls: {mode: SIMPLE, credentialName: missing}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [plain.example, shop.example, staff.example, shut.example]
  gateways: [edge]
  http:
  - match: [{method: {exact: CONNECT}}]
    route: [{destination: {host: vault, port: {number: 8443}}}]
  - route: [{destination: {host: web}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: greeter}
spec:
  hosts: [greeter.example]
  gateways: [edge]
  http:
  - route: [{destination: {host: greeter}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vault}
spec:
  hosts: [vault.example]
  gateways: [edge]
  tls:
  - match: [{port: 443, sniHosts: [vault.example]}]
    route: [{destination: {host: vault, port: {number: 8443}}}]
"""

EGRESS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: legacy}}
spec:
  hosts: [legacy.example]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: way-out}}
spec:
  selector: {{istio: egressgateway}}
  servers:
  - port: {{number: 80, name: out, protocol: {protocol}}}
    hosts: [legacy.example]
    {tls}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: egress}}
spec:
  host: egress
  trafficPolicy: {policy}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: legacy}}
spec:
  hosts: [legacy.example]
  gateways: [mesh, way-out]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: egress.default.svc.cluster.local, port: {{number: 80}}}}}}]
  - match: [{{gateways: [way-out], port: 80}}]
    route: [{{destination: {{host: legacy.example, port: {{number: 80}}}}}}]
"""


class Edge:
    """A running mesh with two gateways, and a client outside it."""

    def __init__(self, stage: Stage, folder: Path, http: int, https: int) -> None:
        self.stage = stage
        self.folder = folder
        self.http_port = http
        self.https_port = https
        self.shop, self.staff, self.vault = Pair("shop.example"), Pair("staff.example"), Pair("vault.example")
        self.authority = Pair("clients.example")
        """Of clients of ``staff.example``."""

    def plain(self, host: str, path: str = "/") -> tuple[int, str, str]:
        """Status, location and body of a request in plain text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            connection.request("GET", path, headers={"host": host})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("location", ""), answer.read().decode()
        finally:
            connection.close()

    def secure(self, host: str, *trusted: Pair, client: Pair | None = None) -> tuple[int, str, int]:
        """Status and body of a request by HTTPS, and the serial number of the server's certificate."""
        context = ssl.create_default_context(cadata="".join(pair.chain for pair in trusted))
        if client is not None:
            file = self.folder / f"{client.serial}.pem"
            file.write_text(client.chain + client.private)
            context.load_cert_chain(file)
        with (
            socket.create_connection(("127.0.0.1", self.https_port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=host) as tls,
        ):
            der = tls.getpeercert(binary_form=True)
            assert der is not None
            tls.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            data = b""
            while block := tls.recv(65536):
                data += block
            status = int(data.split(b" ", 2)[1])
            body = data.partition(b"\r\n\r\n")[2].decode()
            return status, body, x509.load_der_x509_certificate(der).serial_number


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("ingress")
    http, https, out, unused = (free_port() for _ in range(4))
    ports = {"http": http, "https": https, "out": out, "unused": unused}
    (folder / "retia.yaml").write_text(MESH.format(python=sys.executable, **ports))
    (folder / "echo.py").write_text(PROGRAM)
    (folder / "greeter.py").write_text(GREETER)
    stage = Stage(folder / "retia.yaml", capture="ebpf", instances=5)
    found = Edge(stage, folder, http, https)
    (folder / "own.pem").write_text(found.vault.chain + found.vault.private)
    secrets = [found.shop.secret("shop"), found.staff.secret("staff", found.authority)]
    with stage:
        stage.apply_text("\n---\n".join([*secrets, CONFIG]))
        yield found
    assert stage.left == []


def test_a_route_leads_in_and_nothing_else_does(edge: Edge) -> None:
    status, _, body = edge.plain("plain.example", "/some/where?x=1")
    assert status == 200
    assert '"who": "web"' in body
    assert '"/some/where?x=1"' in body
    for stranger in ("other.example", "web", "web.default.svc.cluster.local", "vault"):
        assert edge.plain(stranger)[0] == 404, stranger


def test_plain_text_is_sent_to_https(edge: Edge) -> None:
    status, location, _ = edge.plain("shop.example", "/cart")
    assert (status, location) == (301, "https://shop.example/cart")
    _, location, _ = edge.plain(f"shop.example:{edge.http_port}", "/cart")
    assert location == f"https://shop.example:{edge.https_port}/cart", "the port that is really bound"


def test_tls_ends_at_the_gateway_with_the_secret_of_the_server_name(edge: Edge) -> None:
    status, body, serial = edge.secure("shop.example", edge.shop)
    assert (status, serial) == (200, edge.shop.serial)
    assert '"x-forwarded-proto": "https"' in body.lower()


def test_tls_is_passed_on_unopened(edge: Edge) -> None:
    status, body, serial = edge.secure("vault.example", edge.vault)
    assert (status, serial) == (200, edge.vault.serial)
    assert '"who": "vault"' in body


def test_websockets_pass(edge: Edge) -> None:
    with socket.create_connection(("127.0.0.1", edge.http_port), timeout=10) as raw:
        raw.sendall(
            b"GET / HTTP/1.1\r\nhost: plain.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        stream = raw.makefile("rb")
        assert b"101" in stream.readline()
        while stream.readline().strip():
            pass
        raw.sendall(b"hello\n")
        assert stream.readline() == b"HELLO\n"


def test_a_tunnel_ends_where_its_rule_says(edge: Edge) -> None:
    context = ssl.create_default_context(cadata=edge.vault.chain)
    with socket.create_connection(("127.0.0.1", edge.http_port), timeout=10) as raw:
        raw.sendall(b"CONNECT plain.example:443 HTTP/1.1\r\nhost: plain.example:443\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += raw.recv(1)
        assert b" 200 " in head.splitlines()[0]
        with context.wrap_socket(raw, server_hostname="vault.example") as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nhost: vault.example\r\nconnection: close\r\n\r\n")
            assert b" 200 " in tls.recv(100)
    with socket.create_connection(("127.0.0.1", edge.http_port), timeout=10) as raw:
        raw.sendall(b"CONNECT greeter.example:443 HTTP/1.1\r\nhost: greeter.example:443\r\n\r\n")
        assert b" 404 " in raw.recv(100), "no rule asks for it there"


def test_grpc_web_is_translated(edge: Edge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.http_port, timeout=10)
    headers = {"host": "greeter.example", "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    message = b"world"
    connection.request(
        "POST", "/test.Greeter/Greet", b"\0" + struct.pack(">I", len(message)) + message, headers
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/grpc-web")
    assert body.startswith(b"\0\0\0\0\x0bhello world"), body
    assert b"grpc-status:0" in body, "trailers are a part of the body"


def test_http3_is_spoken_and_offered(edge: Edge, tmp_path: Path) -> None:
    """The client is an Envoy too: it takes HTTP/1.1 and speaks HTTP/3 to the gateway."""
    port = free_port()
    (tmp_path / "ca.pem").write_text(edge.shop.chain)
    config = tmp_path / "client.json"
    config.write_text(json.dumps(_http3_client(port, edge.https_port, tmp_path / "ca.pem")))
    command = [str(envoy.find_path()), "-c", str(config), "--use-dynamic-base-id", "-l", "error"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
        try:
            assert wait_until(lambda: _listens(port), 10)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/quick", headers={"host": "shop.example"})
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
        finally:
            client.terminate()
            client.wait(10)
    assert (answer.status, answer.headers["x-spoken"]) == (200, "HTTP/3"), body
    assert answer.headers["alt-svc"] == f'h3=":{edge.https_port}"; ma=86400'
    assert '"/quick"' in body


def _http3_client(port: int, upstream: int, authority: Path) -> dict[str, object]:
    """An Envoy that tells in ``x-spoken`` what the other side speaks."""
    kinds = "type.googleapis.com/envoy.extensions"
    tls = {
        "sni": "shop.example",
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": str(authority)}}},
    }
    quic = f"{kinds}.transport_sockets.quic.v3.QuicUpstreamTransport"
    options = f"{kinds}.upstreams.http.v3.HttpProtocolOptions"
    manager = {
        "@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "client",
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{kinds}.filters.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "gateway"}}],
                }
            ],
            "response_headers_to_add": [{"header": {"key": "x-spoken", "value": "%UPSTREAM_PROTOCOL%"}}],
        },
    }

    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    cluster = {
        "name": "gateway",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "gateway",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http3_protocol_options": {}},
            }
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.quic",
            "typed_config": {"@type": quic, "upstream_tls_context": tls},
        },
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {"name": "in", "address": address(port), "filter_chains": [{"filters": [network]}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_clients_must_show_the_right_certificate(edge: Edge) -> None:
    assert edge.secure("staff.example", edge.staff, client=Pair("alice.example", edge.authority))[0] == 200
    for wrong in (None, Pair("alice.example"), Pair("mallory.example", edge.authority)):
        with pytest.raises(OSError):
            edge.secure("staff.example", edge.staff, client=wrong)


def test_a_server_without_its_secret_stays_shut_until_there_is_one(edge: Edge) -> None:
    late = Pair("shut.example")
    with pytest.raises(OSError):
        edge.secure("shut.example", late)
    said = [f.message for f in edge.stage.client.analyze()]
    assert any("there is no Secret default/missing" in message for message in said), said
    edge.stage.apply_text(late.secret("missing"))
    assert wait_until(lambda: _answers(edge, "shut.example", late), 10)


def test_a_new_certificate_is_served_without_a_lost_request(edge: Edge) -> None:
    new = Pair("shop.example")
    serials: list[int] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                status, _, serial = edge.secure("shop.example", edge.shop, new)
                assert status == 200
                serials.append(serial)
            except Exception as error:  # noqa: BLE001 - all are counted
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(serials) > 20, 10)
        edge.stage.apply_text(new.secret("shop"))
        assert wait_until(lambda: serials[-20:].count(new.serial) == 20, 10), failures[:3]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(serials) == {edge.shop.serial, new.serial}
    edge.shop = new


def test_private_keys_are_shown_to_nobody(edge: Edge) -> None:
    """Neither by the API nor in a log; and only the gateway that serves them has them."""
    secrets = edge.stage.client.list_objects("Secret")
    assert secrets
    shown = "".join(str(secret.model_dump()) for secret in secrets)
    parts = [line for line in edge.staff.private.splitlines() if len(line) > 60]
    encoded = base64.b64encode(edge.staff.private.encode()).decode()[40:120]
    assert not any(part in shown for part in (encoded, *parts))
    for log in (edge.stage.home / "log").rglob("*.log"):
        text = log.read_text(errors="replace")
        assert encoded not in text, log
        assert not any(part in text for part in parts), log
    for file in (edge.stage.home / "agent").rglob("*.sqlite*"):
        data = file.read_bytes()
        assert not any(part.encode() in data for part in parts), file
    proxies = {p.id: p for p in edge.stage.client.list_proxies()}
    dumps = "config_dump?resource=dynamic_active_secrets"
    held = {name: edge.stage.proxy_of(name).ask(dumps) for name in proxies}
    assert not any(part in str(dump) for part in parts for dump in held.values())
    with_secret = {name for name, dump in held.items() if "kubernetes://staff" in str(dump)}
    assert all("ingress" in name for name in with_secret)
    assert with_secret


class _Legacy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = (self.headers.get("x-envoy-peer", "") + "legacy").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("mutual", [False, True], ids=["plain", "mesh-mutual"])
def test_the_way_out_is_through_the_egress_gateway(edge: Edge, mutual: bool) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Legacy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        edge.stage.apply_text(
            EGRESS.format(
                port=server.server_address[1],
                protocol="HTTPS" if mutual else "HTTP",
                tls="tls: {mode: ISTIO_MUTUAL}" if mutual else "",
                policy="{tls: {mode: ISTIO_MUTUAL, sni: legacy.example}}"
                if mutual
                else "{tls: {mode: DISABLE}}",
            )
        )
        with edge.stage.visitor() as visitor:
            before = _requests(edge)
            answer = visitor.http("http://legacy.example/")
            assert (answer.status, answer.body) == (200, "legacy"), answer
            assert _requests(edge) > before, "the gateway saw it"
    finally:
        server.shutdown()
        server.server_close()


def _requests(edge: Edge) -> int:
    """Requests that the egress gateway has sent on."""
    (proxy,) = (p.id for p in edge.stage.client.list_proxies() if "egress" in p.id)
    return edge.stage.proxy_of(proxy).counted(".upstream_rq_total", containing="legacy.example")


def _answers(edge: Edge, host: str, trusted: Pair) -> bool:
    try:
        return edge.secure(host, trusted)[0] == 200
    except OSError:
        return False
