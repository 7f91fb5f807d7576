"""What a process outside the mesh can see and do; the tour itself is such a process."""

from __future__ import annotations

import re
import socket
import ssl
import time
from ipaddress import ip_address

from retia.cli.tour.client import Answer


def listens(address: str, port: int) -> bool:
    """Whether a listening socket is bound there, from the kernel's own table."""
    packed = ip_address(address).packed
    local = f"{packed[::-1].hex().upper()}:{port:04X}"
    mapped = f"0000000000000000FFFF0000{local}"
    for table, wanted in (("/proc/net/tcp", local), ("/proc/net/tcp6", mapped)):
        with open(table) as lines:  # noqa: PTH123  a kernel file
            if any(f[1] == wanted and f[3] == "0A" for f in map(str.split, lines)):
                return True
    return False


def plain_call(address: str, port: int, timeout_s: float = 2.0) -> Answer:
    """A plain HTTP request from this process, which is not in the mesh."""
    started = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=timeout_s) as connection:
            connection.sendall(b"GET /reviews/1 HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n\r\n")
            data = connection.recv(4096)
    except OSError as error:
        return Answer(0, "", time.monotonic() - started, error=str(error) or type(error).__name__)
    took = time.monotonic() - started
    match = re.match(rb"HTTP/1\.[01] (\d{3})", data)
    if match is None:
        return Answer(0, "", took, error="closed" if not data else "no HTTP")
    server = re.search(rb"(?im)^server: *(.*?)\r?$", data)
    return Answer(
        int(match[1]), data.decode(errors="replace"), took, {"server": server[1].decode() if server else ""}
    )


def tls_without_certificate(address: str, port: int, sni: str) -> tuple[list[str], bool]:
    """The URI names that a proxy presents, and whether it let a client with no certificate send a request."""
    from cryptography import x509

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["retia-l4"])
    presented: list[str] = []
    try:
        with (
            socket.create_connection((address, port), timeout=3) as plain,
            context.wrap_socket(plain, server_hostname=sni) as connection,
        ):
            certificate = connection.getpeercert(binary_form=True)
            if certificate:
                names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
                    x509.SubjectAlternativeName
                )
                presented = names.value.get_values_for_type(x509.UniformResourceIdentifier)
            connection.sendall(b"GET /reviews/1 HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n")
            return presented, connection.recv(1024).startswith(b"HTTP/")
    except OSError:
        return presented, False
