"""A real mesh for the benchmarks: ``retia up`` with a home of its own, any number of services behind it.

A mesh of many services has a few that run here; the others are what the controller remembers of other hosts:
registered workloads, five to a service where nothing else is said. They can't be called, but they are known,
resolved, indexed and served like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retia._generated import agent_pb2 as pb
from retia.api.client import Client, ClientError
from retia.api.local import AgentInfo, Info, LocalClient, Proxies, ProxyList, WorkloadList, Workloads
from retia.control.remembered import Remembered
from retia.sources.sqlite import SqliteStore
from tests.bench.machine import memory_bytes

PORT = 9080
HOSTS = 100
"""Hosts that remembered workloads are spread over."""
CALLER = Path(__file__).with_name("caller.py")
START_S = 60.0


def is_root() -> bool:
    return os.geteuid() == 0


@dataclass(frozen=True)
class Mesh:
    """A mesh that runs."""

    home: Path
    capture: str
    controller_pid: int

    def api(self) -> Client:
        return Client(self.home / "run" / "api.sock")

    def agent(self) -> AgentInfo:
        with self._local() as agent:
            return agent.call(Info(), AgentInfo)

    def pids(self) -> dict[str, tuple[int, int]]:
        """The process of each workload, by its id, and that of its Envoy."""
        with self._local() as agent:
            programs = {w.id: w.pid for w in agent.call(Workloads(), WorkloadList).workloads}
            proxies = {p.workload: p.pid for p in agent.call(Proxies(), ProxyList).proxies}
        return {w: (pid, proxies[w]) for w, pid in programs.items()}

    def workload(self, service: str) -> str:
        """The id of a service's first instance."""
        return min(w for w in self.pids() if w.startswith(f"default/{service}-"))

    def vip(self, service: str) -> str:
        with self.api() as api:
            return api.get_service(f"{service}.default.svc.cluster.local").vip

    def admin(self, workload: str, path: str) -> str:
        with self.api() as api:
            return api.proxy_query(workload, path).body

    def cgroup(self, pid: int) -> Path | None:
        """The process's cgroup in the unified hierarchy; where that isn't mounted, ``None``."""
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                    path = Path(mount + line[3:])
                    if (path / "cgroup.procs").exists() and "retia" in str(path):
                        return path
        return None

    def sidecar_memory(self, workload: str) -> dict[str, int | None]:
        """Bytes: what Envoy has allocated, RSS, PSS, its cgroup's memory (``None``: not accounted)."""
        proxy = self.pids()[workload][1]
        memory = memory_bytes(proxy)
        cgroup = self.cgroup(proxy)
        current = cgroup / "memory.current" if cgroup else None
        return {
            "allocated": int(json.loads(self.admin(workload, "/memory"))["allocated"]),
            "rss": memory["rss"],
            "pss": memory["pss"],
            "private": memory["private_clean"] + memory["private_dirty"],
            "cgroup": int(current.read_text()) if current and current.exists() else None,
        }

    def _local(self) -> LocalClient:
        return LocalClient(self.home / "run" / "agent.sock", timeout_s=20.0)

    def caller(self, workload: str) -> Caller:
        """A program that calls services as this workload; needs eBPF capture."""
        return Caller(self.cgroup(self.pids()[workload][0]))


class Caller:
    """A process inside a workload's cgroup that makes requests, each on a connection of its own."""

    def __init__(self, cgroup: Path | None) -> None:
        assert cgroup is not None, "calls from inside a workload need eBPF capture"
        self._process = subprocess.Popen(
            [sys.executable, "-IS", str(CALLER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: enter(cgroup),
        )

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)

    def get(self, host: str, port: int = PORT) -> dict[str, float]:
        """``total_ms`` from looking the name up to the last byte, its parts, and ``status``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{host} {port}\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def wait(self, host: str, port: int = PORT, seconds: float = 20) -> None:
        """Until ``host`` answers with 200."""
        end = time.monotonic() + seconds
        while (last := self.get(host, port))["status"] != 200:
            if time.monotonic() > end:
                raise TimeoutError(f"{host}:{port} does not answer: {last}")
            time.sleep(0.1)


def enter(cgroup: Path) -> None:
    """The calling process goes into a cgroup; for the time between fork and exec."""
    (cgroup / "cgroup.procs").write_text("0")


@dataclass(frozen=True)
class Service:
    """One service of a mesh file."""

    name: str
    command: str = ""
    protocol: str = ""
    """Of port 9080; empty: it has none."""
    annotations: dict[str, str] = field(default_factory=dict)
    upstreams: Sequence[tuple[str, int]] = ()
    """Services and local ports, for explicit capture."""
    replicas: int = 1


def mesh_file(path: Path, services: Sequence[Service]) -> Path:
    """JSON is YAML."""
    said: dict[str, Any] = {}
    for service in services:
        entry: dict[str, Any] = {"command": service.command or "sleep 1000000", "replicas": service.replicas}
        entry["labels"] = {"app": service.name}
        if service.protocol:
            entry["ports"] = [f"{PORT}/{service.protocol}"]
        if service.annotations:
            entry["annotations"] = service.annotations
        if service.upstreams:
            entry["upstreams"] = [
                {"service": name, "port": PORT, "local_port": port} for name, port in service.upstreams
            ]
        said[service.name] = entry
    path.write_text(json.dumps({"services": said}))
    return path


def backend_service(
    name: str, program: Path, protocol: str = "http", *, inbound_http: bool = False
) -> Service:
    annotations = {"retia.dev/inbound": "http"} if inbound_http else {}
    return Service(name, f"{program} 0.0.0.0 ${{port:{PORT}}}", protocol, annotations)


def seed(home: Path, services: int, endpoints_each: int = 5, first: int = 0) -> None:
    """Let the store remember services of other hosts, as a controller that had them would have."""
    (home / "controller").mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    with SqliteStore(home / "controller" / "store.sqlite") as store:
        remembered = Remembered(store)
        for host in range(HOSTS if services else 0):
            address = f"192.0.2.{host + 1}"
            hello = pb.Hello(
                protocol=1,
                host=f"other-{host}",
                software="bench",
                advertise_address=address,
                gateway_port=15443,
            )
            remembered.put_host(hello)
        for service in range(first, first + services):
            for instance in range(endpoints_each):
                host = (service * endpoints_each + instance) % HOSTS
                remembered.put_workload(f"other-{host}", _workload(service, instance, host))
        remembered.flush()


def _workload(service: int, instance: int, host: int) -> Any:
    number = service * 8 + instance
    tail = f"{number >> 8 & 255}.{number & 255}"
    message = pb.Workload(
        id=f"default/far{service}-{instance}",
        namespace="default",
        service_account=f"far{service}",
        service=f"far{service}",
        published_address=f"127.64.{tail}",
        app_address=f"127.65.{tail}",
        capture="ebpf",
        healthy=True,
        gateway_address=f"192.0.2.{host + 1}",
        gateway_port=15443,
    )
    message.ports.add(number=PORT, app_port=PORT, protocol="http", listening=True)
    message.labels.update({"app": f"far{service}", "version": f"v{instance % 2 + 1}"})
    return message


def retia(home: Path, *words: str, seconds: float = START_S) -> str:
    """Run the command; its standard output. A failure shows what it said."""
    command = [str(Path(sys.executable).with_name("retia")), "--home", str(home), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"retia {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@contextlib.contextmanager
def home_folder() -> Iterator[Path]:
    """A short path, for unix sockets; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def controller(home: Path, lease_s: float = 3600) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A controller alone, and the seconds until it was ready. Its lease is long: what is remembered stays."""
    (home / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    index = _free_index()
    (home / "run" / "index").write_text(f"{index}\n")
    command = [str(Path(sys.executable).with_name("retia")), "--home", str(home), "controller"]
    command += ["--index", str(index), "--lease", str(lease_s)]
    begin = time.monotonic()
    with (home / "controller.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _until_ready(home, process)
        yield process, time.monotonic() - begin
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_index() -> int:
    """An index that no mesh of this machine has; held by nobody until the controller and agent take it."""
    for index in range(15, -1, -1):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as lock:
            lock.bind(f"\0retia-mesh-{index}")
            return index
    raise RuntimeError("all sixteen mesh indexes of this machine are taken")


def _until_ready(home: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the controller ended: {(home / 'controller.log').read_text()[-500:]}")
        if (home / "run" / "api.sock").exists():
            with contextlib.suppress(ClientError), Client(home / "run" / "api.sock") as api:
                if api.status().ready:
                    return
        time.sleep(0.02)
    raise TimeoutError(f"the controller is not ready after {START_S:.0f} s")


@contextlib.contextmanager
def mesh(services: Sequence[Service], remembered: int = 0, capture: str = "") -> Iterator[Mesh]:
    """A mesh with these services and ``remembered`` ones of other hosts."""
    capture = capture or ("ebpf" if is_root() else "explicit")
    with home_folder() as home, contextlib.ExitStack() as stack:
        file = mesh_file(home / "retia.yaml", services)
        pid = 0
        if remembered:
            seed(home, remembered)
            pid = stack.enter_context(controller(home))[0].pid
        stack.callback(_down, home)
        retia(home, "up", str(file), "--detach", "--capture", capture)
        if not pid:
            with Client(home / "run" / "api.sock") as api:
                pid = api.status().pid
        yield Mesh(home, capture, pid)


def _down(home: Path) -> None:
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        retia(home, "down")
