"""An agent that takes processes in without a proxy: the local protocol over a real unix socket.

Capture is explicit: a port counts as listening when something accepts on 127.0.0.1. Everything asked of it is
kept in ``calls``, in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retia.api import local


@dataclass
class FakeAgent:
    calls: list[tuple[str, str]] = field(default_factory=list)
    launches: dict[str, local.Launch] = field(default_factory=dict)
    unhealthy: set[str] = field(default_factory=set)
    connected: bool = True
    refuse: str = ""
    probes: tuple[local.Probe, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, request: Any) -> Any:
        if isinstance(request, local.Launch):
            return self.launch(request)
        if isinstance(request, local.Stop):
            return self.stop(request)
        if isinstance(request, local.Workloads):
            return local.WorkloadList(workloads=tuple(self.seen()))
        if isinstance(request, local.Bypass):
            self.calls.append(("bypass", f"{request.workload} {request.seconds} {request.reason}".rstrip()))
            until = time.time() + request.seconds if request.seconds else 0.0
            return local.Bypassed(workload=request.workload, until=until)
        if isinstance(request, local.Info):
            return local.AgentInfo(
                software="0.1.0", host="h1", connected=self.connected, reason="a test", probes=self.probes
            )
        if isinstance(request, local.Proxies):
            return local.ProxyList()
        raise local.LocalError("bad-request", f"the fake knows no {type(request).__name__}")

    def launch(self, request: local.Launch) -> local.Launched:
        if self.refuse:
            raise local.LocalError("conflict", self.refuse)
        with self.lock:
            version = request.labels.get("version", "")
            base = "-".join(p for p in (request.service or "client", version) if p)
            number = 0
            while f"{request.namespace}/{base}-{number}" in self.launches:
                number += 1
            name = f"{request.namespace}/{base}-{number}"
            self.launches[name] = request
            self.calls.append(("launch", name))
        upstreams = tuple(
            u.model_copy(update={"local_port": u.local_port or 20_000 + i})
            for i, u in enumerate(request.upstreams)
        )
        return local.Launched(
            workload=name,
            proxy=name,
            namespace=request.namespace,
            capture="explicit",
            reason="a test",
            env={"http_proxy": "http://127.0.0.1:1", "REMOVED": ""},
            upstreams=upstreams,
        )

    def stop(self, request: local.Stop) -> local.Done:
        self.calls.append(("stop", request.workload))
        launched = self.launches.pop(request.workload, None)
        if launched is None:
            raise local.LocalError("not-found", f"there is no workload {request.workload}")
        for number, wait_s in ((signal.SIGTERM, request.grace_s), (signal.SIGKILL, 5.0)):
            if not alive(launched.pid):
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(launched.pid, number)
            deadline = time.monotonic() + wait_s
            while alive(launched.pid) and time.monotonic() < deadline:
                time.sleep(0.01)
        return local.Done()

    def seen(self) -> Iterator[local.WorkloadInfo]:
        with self.lock:
            for name in [n for n, launch in self.launches.items() if not alive(launch.pid)]:
                del self.launches[name]
            present = dict(self.launches)
        for name, launch in present.items():
            healthy = launch.service not in self.unhealthy
            yield local.WorkloadInfo(
                id=name,
                namespace=launch.namespace,
                service=launch.service,
                pid=launch.pid,
                ports=launch.ports,
                listening=tuple(p.number for p in launch.ports if accepts(p.app_port or p.number)),
                healthy=healthy,
                registered=True,
            )

    def pids(self, service: str = "") -> list[int]:
        found = list(self.launches.values())
        return sorted(i.pid for i in found if service in ("", i.service) and alive(i.pid))


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def serving(agent: FakeAgent, path: Path) -> Iterator[None]:
    """The agent on a unix socket, in threads; what it still knows at the end is killed."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                answer: dict[str, Any]
                try:
                    result = agent.handle(local.REQUEST.validate_json(line))
                    answer = {"result": result.model_dump(mode="json")}
                except local.LocalError as error:
                    answer = {"error": {"code": error.code, "message": error.message}}
                with contextlib.suppress(OSError):
                    self.wfile.write(json.dumps(answer).encode() + b"\n")

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    path.parent.mkdir(parents=True, exist_ok=True)
    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="fake-agent")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(5)
            for pid in agent.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
