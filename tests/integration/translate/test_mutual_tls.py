"""Generated listeners and clusters in a real Envoy: mutual TLS from one to the other, and who is refused.

One Envoy plays both sides with static resources; its secrets come from a file, since there is no agent here.
"""

from __future__ import annotations

import http.client
import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from envoy.service.discovery.v3 import discovery_pb2

from retia.cli.tour.stage import free_port
from retia.model.resource import TypeUrl
from retia.translate import hcm, pb
from retia.translate.http_filters import Place, chain_filters
from tests.simulation.traffic import hello_of
from tests.support.validating import decode, envoy_binary
from tests.support.world import World, outbound

PUBLISHED, APP = "127.97.64.1", "127.97.65.1"


CALLER_PORT, ADMIN_PORT = free_port(), free_port()
REVIEWS = "spiffe://cluster.local/ns/default/sa/reviews"


class Keys:
    """A root and leaves below it, as PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        self.root = self._certificate(self.name, self.key.public_key(), ca=True)
        (folder / "root.pem").write_bytes(self.root.public_bytes(serialization.Encoding.PEM))

    def leaf(self, name: str, identity: str) -> tuple[Path, Path]:
        """Paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(x509.Name([]), key.public_key(), identity=identity)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _certificate(self, subject: x509.Name, key: Any, *, ca: bool = False, identity: str = "") -> Any:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if identity:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
            builder = builder.add_extension(names, critical=True)
        return builder.sign(self.key, hashes.SHA256())


class Application(http.server.BaseHTTPRequestHandler):
    """Says hello, and which client certificate it was told of."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"hello {self.headers.get('x-forwarded-client-cert', '')}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def application() -> Iterator[None]:
    server = http.server.ThreadingHTTPServer((APP, 9080), Application)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield
    server.shutdown()
    server.server_close()


def world(strict: bool = False, http_inbound: bool = False) -> World:
    made = World().service("reviews", http_inbound=http_inbound).service("productpage", 9090)
    made.workloads[0] = replace(made.workloads[0], published_address=PUBLISHED, app_address=APP)
    if strict:
        made.apply("kind: PeerAuthentication\nmetadata: {name: pa}\nspec: {mtls: {mode: STRICT}}")
    return made


def secrets(folder: Path, certificate: Path, key: Path, root: Path) -> Path:
    """The folder of the two secrets as files that Envoy reads in place of an agent's answers."""
    own = secret_pb2.Secret(name="default")
    own.tls_certificate.certificate_chain.filename = str(certificate)
    own.tls_certificate.private_key.filename = str(key)
    trusted = secret_pb2.Secret(name="ROOTCA")
    trusted.validation_context.trusted_ca.filename = str(root)
    for secret in (own, trusted):
        response = discovery_pb2.DiscoveryResponse()
        pb.pack(response.resources.add(), secret)
        (folder / f"{secret.name}.pb").write_bytes(response.SerializeToString())
    return folder


def with_file_secrets(transport_socket: Any, kind: Any, path: Path) -> None:
    context = kind()
    transport_socket.typed_config.Unpack(context)
    common = context.common_tls_context
    for config in (
        common.tls_certificate_sds_secret_configs[0],
        common.combined_validation_context.validation_context_sds_secret_config,
    ):
        config.sds_config.ClearField("ads")
        config.sds_config.path_config_source.path = str(path / f"{config.name}.pb")
    pb.pack(transport_socket.typed_config, context)


def bootstrap(made: World, secret_file: Path, identity: str = "") -> Any:
    """The inbound side of reviews, and a caller at ``127.0.0.1:CALLER_PORT``."""
    server, client = made.client("reviews"), made.client("productpage")
    message = bootstrap_pb2.Bootstrap()
    message.node.id = message.node.cluster = "test"
    message.admin.address.socket_address.address = "127.0.0.1"
    message.admin.address.socket_address.port_value = ADMIN_PORT
    static = message.static_resources
    listener = server.listener("inbound")
    for chain in listener.filter_chains:
        if chain.HasField("transport_socket"):
            with_file_secrets(chain.transport_socket, tls_pb2.DownstreamTlsContext, secret_file)
    static.listeners.append(listener)
    static.clusters.append(server.cluster("inbound|9080||"))
    cluster = client.cluster(outbound("reviews"))
    assignment = decode(TypeUrl.ENDPOINTS, client.built(TypeUrl.ENDPOINTS, outbound("reviews")))
    cluster.ClearField("eds_cluster_config")
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.CopyFrom(
        endpoint_pb2.ClusterLoadAssignment.FromString(assignment.SerializeToString())
    )
    with_file_secrets(cluster.transport_socket, tls_pb2.UpstreamTlsContext, secret_file)
    static.clusters.append(cluster)
    caller = static.listeners.add()
    caller.name = "caller"
    caller.address.socket_address.address = "127.0.0.1"
    caller.address.socket_address.port_value = CALLER_PORT
    manager = hcm.new_manager("caller")
    manager.route_config.virtual_hosts.append(client.virtual_host("9080/reviews"))
    hcm.put_filters(manager, chain_filters(client.view, Place.OUTBOUND, on_demand=False))
    hcm.add_to(caller.filter_chains.add(), manager, client.view)
    return message


class Running:
    """An Envoy with a bootstrap; ready when entered."""

    def __init__(self, message: Any, folder: Path) -> None:
        # Not beside the secrets: Envoy watches their folder, and would watch itself write.
        home = folder / "envoy"
        home.mkdir()
        path = home / "bootstrap.pb"
        path.write_bytes(message.SerializeToString())
        self.log = (home / "envoy.log").open("wb")
        self.process = subprocess.Popen(
            [
                str(envoy_binary()),
                "-c",
                str(path),
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "-l",
                "warn",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Running:
        try:
            return self._ready()
        except BaseException:
            self.__exit__()
            raise

    def _ready(self) -> Running:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self.process.poll() is None, Path(self.log.name).read_text()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=1)
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(Path(self.log.name).read_text())

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.log.close()


def get(address: str, port: int, host: str = "reviews") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, port, timeout=5)
    connection.request("GET", "/", headers={"host": host})
    response = connection.getresponse()
    return response.status, response.read().decode()


def tls_get(
    keys: Keys, server_name: str, alpn: str, certificate: tuple[Path, Path] | None, port: int = 15006
) -> str:
    """A request in TLS of our own making; the first line of the answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(keys.folder / "root.pem")
    context.set_alpn_protocols([alpn])
    if certificate is not None:
        context.load_cert_chain(*certificate)
    with (
        socket.create_connection((PUBLISHED, port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n")
        return tls.recv(4096).decode().partition("\r\n")[0]


@pytest.mark.usefixtures("application")
class TestOneEnvoy:
    def test_l4(self, keys: Keys, tmp_path: Path) -> None:
        made = world()
        own = keys.leaf("own", REVIEWS)
        secret_file = secrets(tmp_path, *own, keys.folder / "root.pem")
        name = hello_of(made.client("productpage"), outbound("reviews")).server_name
        stranger = keys.leaf("stranger", "spiffe://elsewhere/ns/default/sa/reviews")

        with Running(bootstrap(made, secret_file), tmp_path):
            assert get("127.0.0.1", CALLER_PORT) == (200, "hello ")
            assert get(PUBLISHED, 9080)[0] == 200, "PERMISSIVE takes plaintext at the service's port"
            assert tls_get(keys, name, "retia-l4", own) == "HTTP/1.1 200 OK"
            with pytest.raises(OSError):
                get(PUBLISHED, 15006)
            for alpn, certificate in (
                ("retia-l4", None),
                ("retia-l4", stranger),
                ("h2", own),
                ("retia-h2", own),
            ):
                with pytest.raises(OSError):
                    assert not tls_get(keys, name, alpn, certificate), (
                        "an empty answer is a closed connection"
                    )
                    raise OSError

    def test_http_depth(self, keys: Keys, tmp_path: Path) -> None:
        made = world(http_inbound=True)
        own = keys.leaf("own", REVIEWS)
        secret_file = secrets(tmp_path, *own, keys.folder / "root.pem")

        with Running(bootstrap(made, secret_file), tmp_path):
            status, body = get("127.0.0.1", CALLER_PORT)

        assert (status, body.partition("URI=")[2]) == (200, REVIEWS)

    def test_strict(self, keys: Keys, tmp_path: Path) -> None:
        made = world(strict=True)
        secret_file = secrets(tmp_path, *keys.leaf("own", REVIEWS), keys.folder / "root.pem")

        with Running(bootstrap(made, secret_file), tmp_path):
            assert get("127.0.0.1", CALLER_PORT) == (200, "hello ")
            with pytest.raises(OSError):
                get(PUBLISHED, 9080)

    def test_a_peer_with_another_identity_is_not_spoken_to(self, keys: Keys, tmp_path: Path) -> None:
        made = world()
        other = keys.leaf("other", "spiffe://cluster.local/ns/default/sa/ratings")
        secret_file = secrets(tmp_path, *other, keys.folder / "root.pem")

        with Running(bootstrap(made, secret_file), tmp_path):
            assert get("127.0.0.1", CALLER_PORT)[0] == 503
