"""A stage for capture's tests: real processes in real cgroups, and a stand-in for Envoy."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retia.node.addresses import workload_addresses
from retia.node.capture import CgroupPath, HostCapture, InstanceAddresses
from retia.node.listening import fetch_listeners

INDEX = 15
"""The mesh index of these tests: the last one, so that meshes in use are left alone."""

_FOLDER = Path(__file__).parent
SAY = str(_FOLDER / "say.py")


class Place:
    """A cgroup to run programs in; ``None`` stands for the host outside the mesh: a stranger."""

    def __init__(self, stage: Stage, cgroup: Path | None) -> None:
        self._stage = stage
        self.cgroup = cgroup

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """A program that runs until the test ends."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=self._enter,
            env=environment or None,
        )
        self._stage.processes.append(process)
        return process

    def python(self, code: str, *arguments: str) -> str:
        """What a Python program prints; the test fails with its words if it fails."""
        process = self.start(sys.executable, "-IS", "-c", code, *arguments)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said
        return said.strip()

    def ask(self, address: str, port: int, timeout_s: float = 3.0) -> str:
        """What comes back from a TCP connection: text, or the name of the error (``timeout`` for silence)."""
        return self.python(_ASK, address, str(port), str(timeout_s))

    def _enter(self) -> None:
        if self.cgroup is not None:
            (self.cgroup / "cgroup.procs").write_text("0")


_ASK = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
try:
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(float(sys.argv[3]))
        s.connect((sys.argv[1], int(sys.argv[2])))
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        said = b""
        while part := s.recv(65536):
            said += part
        print(said.decode(errors="replace"))
except TimeoutError:
    print("timeout")
except OSError as error:
    print(type(error).__name__)
"""


class Workload:
    """An instance with its proxy's cgroup. ``app`` and ``published`` are its addresses."""

    def __init__(self, stage: Stage, number: int, index: int, cgroup: CgroupPath, proxy: CgroupPath) -> None:
        addresses = workload_addresses(index, number)
        self.id = instance_id(number)
        self.app, self.published = addresses.app, addresses.published
        self.inside = Place(stage, cgroup)
        self.proxy = Place(stage, proxy)
        self._stage = stage

    def serve(self, port: int, text: str, bind: str = "0.0.0.0", **options: str) -> subprocess.Popen[str]:
        """A program of the workload that says ``text`` to whoever connects to ``port``."""
        server = self.inside.start(sys.executable, "-IS", SAY, bind, str(port), text, json.dumps(options))
        assert server.stdout is not None
        line = server.stdout.readline().strip()
        assert line.startswith("ready"), line + server.stdout.read()
        return server

    def start_proxy(self, *ports: int) -> subprocess.Popen[str]:
        """A stand-in for the proxy: tells every caller what it would do with the connection."""
        proxy = self.proxy.start(
            sys.executable,
            "-IS",
            str(_FOLDER / "standin.py"),
            self.app,
            *(str(p) for p in ports or _OUTBOUND),
        )
        assert proxy.stdout is not None
        assert proxy.stdout.readline().strip() == "ready"
        return proxy


_OUTBOUND = (15001, 15002, 15003)


def instance_id(number: int) -> str:
    return f"test/w-{number}"


class Stage:
    """Everything that a test may use, and what has to be put away after it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.capture = HostCapture.open(index)
        self.processes: list[subprocess.Popen[str]] = []
        self.stranger = Place(self, None)

    def workload(self, number: int, **options: object) -> Workload:
        addresses = workload_addresses(self.index, number)
        instance = InstanceAddresses(instance_id(number), addresses.published, addresses.app, **options)  # type: ignore[arg-type]
        cgroup = self.capture.add_instance(instance)
        return Workload(self, number, self.index, cgroup, self.capture.proxy_cgroup(instance.id))

    def place(self, cgroup: Path) -> Place:
        return Place(self, cgroup)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate(timeout=10)
        self.processes.clear()

    def close(self) -> None:
        for instance in self.capture.instances():
            self.capture.remove_instance(instance, kill=True)
        for proxy in self.capture.proxies():
            self.capture.remove_proxy(proxy, kill=True)
        self.stop()
        self.capture.close(teardown=True)


@contextlib.contextmanager
def opened(index: int) -> Iterator[Stage]:
    stage = Stage(index)
    try:
        yield stage
    finally:
        stage.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with opened(INDEX) as made:
        yield made


@pytest.fixture
def second_stage() -> Iterator[Stage]:
    with opened(INDEX - 1) as made:
        yield made


@pytest.fixture
def wait_listening() -> Callable[[str, int], None]:
    def wait(address: str, port: int) -> None:
        deadline = time.monotonic() + 10
        while not fetch_listeners().has(address, port):
            assert time.monotonic() < deadline, f"nothing listens at {address}:{port}"
            time.sleep(0.01)

    return wait
