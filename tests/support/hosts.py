"""Several hosts on one machine: network namespaces on one wire, each with a state folder of its own.

A namespace has its own loopback, ports and mesh index, so what runs in one meets what runs in another only
over the wire. A process belongs to the namespace of the thread that starts it: :meth:`Host.inside`.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from retia.api.client import Client, ClientError
from retia.api.local import AgentInfo, Info, LocalClient, LocalError
from retia.cli.tour.client import Visitor
from retia.cli.tour.envoy import Envoy
from retia.cli.tour.processes import belonging_to, end, retia, tail, wait_until

CLONE_NEWNET = 0x40000000
"""linux/sched.h."""
START_S = 20.0
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()

PROGRAM = """
import http.server, json, os, socketserver, sys, threading

class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        headers = {k.lower(): v for k, v in self.headers.items()}
        body = json.dumps({"who": os.environ["WHO"], "headers": headers})
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass

class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(("hello from " + os.environ["WHO"] + "\\n").encode())
        for line in self.rfile:
            self.wfile.write(line.upper())

socketserver.ThreadingTCPServer.allow_reuse_address = True
tcp = socketserver.ThreadingTCPServer(("0.0.0.0", 7000), Tcp)
threading.Thread(target=tcp.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Http).serve_forever()
"""
"""HTTP on 8000; on 7000 a server that speaks first. Both say who they are."""


def ip(*arguments: str) -> None:
    """``ip`` of iproute2; raises where it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def enter(namespace: Path) -> None:
    """This thread goes there."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    finally:
        os.close(descriptor)


class Home:
    """A state folder on this machine, with what runs for it. Use it as a context manager; :attr:`left` holds
    what did not end by itself."""

    def __init__(self, name: str = "one", address: str = "127.0.0.1") -> None:
        self.name = name
        self.address = address
        self.left: list[str] = []
        self.home = Path(tempfile.mkdtemp(prefix="retia-"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if k != "RETIA_AGENT_SOCKET"},
            "RETIA_HOME": str(self.home),
        }
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._visitors: list[Visitor] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """What this thread starts or opens meanwhile is there."""
        return contextlib.nullcontext()

    # -- processes

    def start(self, name: str, argv: Sequence[str], **more: str) -> subprocess.Popen[str]:
        """A process with a log of its own."""
        log = self.log(name)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        with self.inside(), log.open("ab") as sink:
            self._processes[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**self.environment, **more},
                cwd="/",
                text=True,
                start_new_session=True,
            )
        return self._processes[name]

    def stop(self, name: str, first: int = signal.SIGTERM, grace_s: float = 20) -> int:
        """Ends a process; its exit status."""
        process = self._processes.pop(name)
        end(process, grace_s, first)
        return process.returncode

    def log(self, name: str) -> Path:
        return self.home / "log" / f"test-{name}.log"

    def command(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A command of the command line, run to its end."""
        with self.inside():
            return subprocess.run(
                retia(*arguments),
                stdin=subprocess.DEVNULL,
                env=self.environment,
                cwd="/",
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )

    def controller(self, *options: str) -> None:
        """Starts a controller, and waits until it is ready."""
        process = self.start("controller", retia("controller", *options))

        def ready() -> bool:
            with contextlib.suppress(ClientError):
                return self.client().status().ready
            return process.poll() is not None

        wait_until(ready, START_S)
        assert process.poll() is None, tail(self.log("controller"))

    def agent(self, *options: str) -> None:
        """Starts an agent, and waits until it is connected."""
        process = self.start("agent", retia("agent", "--host", self.name, *options))
        wait_until(lambda: self.connected() or process.poll() is not None, START_S)
        assert self.connected(), tail(self.log("agent"))

    def forget_index(self) -> None:
        """Whatever else uses this machine may take the mesh's index while nothing runs here."""
        (self.home / "run" / "index").unlink(missing_ok=True)

    def join(self, controller: Home, *options: str) -> None:
        """Becomes a host of that controller's mesh, as the manual says."""
        token = controller.token()
        where = f"{controller.address}:15012"
        address = self.address
        self.agent("--join", token, "--controller", where, "--advertise-address", address, *options)

    def token(self, *options: str) -> str:
        done = self.command("token", "create", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, service: str, version: str = "", *options: str, who: str = "") -> str:
        """Runs :data:`PROGRAM` in the mesh; the name of its process here."""
        name = f"{service}-{version or next(_numbers)}"
        ports = ("--port", "8000/http", "--port", "7000/tcp")
        version_option = ("--version", version) if version else ()
        argv = retia(
            "run",
            "--service",
            service,
            *ports,
            *version_option,
            *options,
            "--",
            sys.executable,
            "-c",
            PROGRAM,
        )
        self.start(name, argv, WHO=who or f"{service} on {self.name}")
        return name

    def visitor(self, account: str = "visitor") -> Visitor:
        """A client on this host."""
        log = self.log(account)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        with self.inside():
            visitor = Visitor(self.environment, log, sys.executable, "ebpf", account)
        self._visitors.append(visitor)
        return visitor

    # -- asking

    def client(self) -> Client:
        """The HTTP API of the controller on this host."""
        return Client(self.home / "run" / "api.sock")

    def info(self) -> AgentInfo:
        with LocalClient(self.home / "run" / "agent.sock") as client:
            return client.call(Info(), AgentInfo)

    def connected(self) -> bool:
        try:
            return self.info().connected
        except LocalError:
            return False

    def envoy(self, proxy: str) -> Envoy:
        return Envoy(self.client(), proxy)

    # -- end

    def close(self) -> None:
        """Ends everything, and removes the folder."""
        for visitor in self._visitors:
            visitor.close()
        for name in sorted(self._processes, key=lambda n: (n == "controller", n == "agent")):
            self.stop(name)
        wait_until(lambda: not belonging_to(self.home), 10)
        self.left = belonging_to(self.home)
        for process in self.left:
            with contextlib.suppress(OSError):
                os.kill(int(process.split(":", 1)[0]), signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)


class Host(Home):
    """One host: made by :class:`Network`."""

    def __init__(self, name: str, namespace: str, address: str, wire: str, port: str) -> None:
        super().__init__(name, address)
        self.namespace = namespace
        self._wire = wire
        self._port = port

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread starts or opens meanwhile is on this host."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(Path("/run/netns") / self.namespace)
            yield
        finally:
            _libc.setns(before, CLONE_NEWNET)
            os.close(before)

    def cut_off(self) -> None:
        """The cable is pulled out at the far end."""
        ip("-n", self._wire, "link", "set", self._port, "down")

    def reconnect(self) -> None:
        ip("-n", self._wire, "link", "set", self._port, "up")

    def firewall(self, *ports: int) -> None:
        """Only these TCP ports are open to other hosts."""
        rules = f"""
            table inet retia_test {{
              chain input {{
                type filter hook input priority 0; policy drop;
                iif lo accept
                ct state established,related accept
                icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
                tcp dport {{ {", ".join(map(str, ports))} }} accept
              }}
            }}"""
        with self.inside():
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, timeout=10, check=True)

    def close(self) -> None:
        super().close()
        ip("netns", "delete", self.namespace)


class Network:
    """Hosts on one wire. Use it as a context manager; :attr:`left` holds what did not end by itself."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._mark = f"retia-{os.getpid()}-{next(_numbers)}"
        self._wire = f"{self._mark}-wire"
        self.hosts: list[Host] = []
        self.left: list[str] = []

    def __enter__(self) -> Self:
        try:
            ip("netns", "add", self._wire)
            ip("-n", self._wire, "link", "add", "wire", "type", "bridge")
            ip("-n", self._wire, "link", "set", "wire", "up")
            for number, name in enumerate(self._names, 1):
                self.hosts.append(self._add(number, name))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, number: int, name: str) -> Host:
        namespace, port = f"{self._mark}-{name}", f"port{number}"
        ip("netns", "add", namespace)
        host = Host(name, namespace, f"10.231.0.{number}", self._wire, port)
        try:
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", self._wire, "link", "add", port, "type", "veth", "peer", "eth0", "netns", namespace)
            ip("-n", self._wire, "link", "set", port, "master", "wire", "up")
            ip("-n", namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
        except BaseException:
            host.close()
            raise
        return host

    def close(self) -> None:
        for host in reversed(self.hosts):
            host.close()
            self.left += host.left
        self.hosts.clear()
        ip("netns", "delete", self._wire)


def workloads(controller: Home) -> dict[str, str]:
    """The ready workloads that serve something, with the host each is on."""
    with controller.client() as client:
        return {w.id: w.host for w in client.list_workloads() if w.service and w.state == "ready"}


def show(host: Home, *arguments: str) -> object:
    """What a command prints as JSON."""
    done = host.command(*arguments, "-o", "json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)
