"""A mesh of its own in a temporary state folder, started and ended as a user would: ``retia up``, a signal.

At start: waits, with a bound, until every instance that the mesh file lists is registered and listens. On
failure: the folder's logs are quoted, then everything is ended. At the end: ``retia up`` is told to stop, and
what is still there afterwards is ended by force and reported as a leftover.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from retia.cli.tour import leftovers
from retia.cli.tour.client import Visitor
from retia.cli.tour.envoy import Envoy
from retia.cli.tour.errors import TourError
from retia.cli.tour.processes import belonging_to, end, retia, tail, wait_until

if TYPE_CHECKING:
    from retia.api.client import Client
    from retia.api.schema import ApplyResult, WorkloadInfo

START_S = 90.0
"""All of a shop of eleven programs with their proxies, on two busy cores; arbitrary, generous."""

STOP_S = 40.0
"""Longer than the drain and grace times of ``retia up``."""

SETTLE_S = 20.0


class Stage:
    """A running mesh. Use it as a context manager; :attr:`left` holds what it left behind, once closed."""

    def __init__(
        self,
        mesh_file: Path,
        capture: str = "auto",
        instances: int | None = None,
        home: Path | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._file = mesh_file
        self._capture = capture
        self._instances = instances
        self._arguments = list(arguments)
        self._given_home = home
        self._visitors: list[Visitor] = []
        self._process: subprocess.Popen[str] | None = None
        self._client: Client | None = None
        self._bpffs_before = leftovers.bpffs_is_ours()
        self.left: list[str] = []
        self.home = home or Path(tempfile.mkdtemp(prefix="retia-demo-"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("RETIA_AGENT_SOCKET", "PYTHONSTARTUP")},
            "RETIA_HOME": str(self.home),
        }
        self.log = self.home / "log" / "demo.log"

    # -- life

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the mesh and wait until it is whole; raises :class:`TourError` when that fails."""
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                retia("up", str(self._file), "--capture", self._capture, *self._arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                text=True,
                start_new_session=True,
            )
        if not wait_until(self._whole_or_dead, START_S, poll_s=0.1):
            raise TourError(
                f"the mesh was not ready within {START_S:.0f} s: {self._missing()}\n{tail(self.log)}"
            )
        if self._process.poll() is not None:
            raise TourError(f"'retia up' ended with status {self._process.returncode}:\n{tail(self.log)}")

    def close(self) -> None:
        """End the mesh and everything in it; fills :attr:`left`."""
        with _uninterrupted():
            for visitor in self._visitors:
                visitor.close()
            self._visitors.clear()
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._process is not None:
                end(self._process, STOP_S, signal.SIGINT)
                self._process = None
            index = leftovers.index_of(self.home)
            # The agent and its keeper may need a moment after their parent; what stays longer is left over.
            wait_until(lambda: not belonging_to(self.home), 5)
            remaining = belonging_to(self.home)
            if self._given_home is None:
                shutil.rmtree(self.home, ignore_errors=True)
            wait_until(lambda: not self._traces(index), 2)
            self.left = self._traces(index)
            for process in remaining:
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(process.split(":", 1)[0]), signal.SIGKILL)

    def _traces(self, index: int | None) -> list[str]:
        found = leftovers.traces(self.home, index, self._bpffs_before)
        return [f for f in found if self._given_home is None or f != f"folder {self.home}"]

    # -- the mesh, asked

    @property
    def client(self) -> Client:
        """The HTTP API."""
        from retia.api.client import Client

        if self._client is None:
            self._client = Client(self.home / "run" / "api.sock")
        return self._client

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def workloads(self, service: str = "", version: str = "") -> list[WorkloadInfo]:
        """The registered instances, of one service and version where given; sorted by name."""
        return [
            w
            for w in self.client.list_workloads()
            if (not service or w.service == service) and (not version or w.version == version)
        ]

    def proxy_of(self, workload: str) -> Envoy:
        """The proxy of a workload (``default/reviews-v1-0``)."""
        for proxy in self.client.list_proxies():
            if workload in (proxy.workload, proxy.id):
                return Envoy(self.client, proxy.id)
        raise TourError(f"{workload} has no proxy")

    def capture(self) -> str:
        """``ebpf`` or ``explicit``: what the instances really run under."""
        modes = {w.capture for w in self.workloads() if w.service}
        return "ebpf" if modes == {"ebpf"} else "explicit"

    # -- the mesh, told

    def visitor(self, account: str = "visitor", upstreams: tuple[str, ...] = ()) -> Visitor:
        """A client in the mesh; it is ended with the stage at the latest."""
        log = self.home / "log" / f"{account}.log"
        visitor = Visitor(self.environment, log, sys.executable, self._capture, account, upstreams)
        self._visitors.append(visitor)
        return visitor

    def apply(self, *files: Path) -> None:
        """Apply files, and wait until all proxies that are concerned have acknowledged."""
        from retia.api.schema import Document

        documents = [Document(path=f.name, text=f.read_text()) for f in files]
        result = self.client.apply(documents)
        if not result.applied:
            raise TourError("; ".join(str(f) for f in result.findings) or "the controller refused the files")
        self.settle(result)

    def apply_text(self, text: str) -> None:
        """The same, from a string."""
        from retia.api.schema import Document

        result = self.client.apply([Document(path="-", text=text)])
        if not result.applied:
            raise TourError("; ".join(str(f) for f in result.findings) or "the controller refused the text")
        self.settle(result)

    def settle(self, result: ApplyResult) -> None:
        """Wait until what ``result`` changed is in force at every proxy that uses it."""
        names = [item.object.split("/") for item in result.items if item.action in ("created", "configured")]

        def delivered() -> bool:
            return all(self.client.delivery(k, ns, name).pending == 0 for k, ns, name in names)

        if not wait_until(delivered, SETTLE_S):
            raise TourError(f"not acknowledged by all proxies within {SETTLE_S:.0f} s: {names}")
        # Acknowledged means taken over by Envoy's main thread; its workers follow within their next event.
        time.sleep(0.05)

    # -- starting and waiting

    def _whole_or_dead(self) -> bool:
        return not self.running or not self._missing()

    def _missing(self) -> str:
        """What the mesh still waits for; empty: nothing."""
        from retia.api.client import ClientError

        if not (self.home / "run" / "api.sock").exists():
            return "the controller does not answer yet"
        try:
            workloads = [w for w in self.client.list_workloads() if w.service]
            ready = {p.workload for p in self.client.list_proxies() if p.connected}
        except ClientError as error:
            return str(error)
        wanted = expected_instances(self._file) if self._instances is None else self._instances
        if len(workloads) < wanted:
            return f"{len(workloads)} of {wanted} instances are registered"
        late = [w.id for w in workloads if w.state != "ready" or w.id not in ready]
        return f"not ready: {', '.join(late)}" if late else ""


def expected_instances(mesh_file: Path) -> int:
    """How many programs a mesh file starts."""
    from retia.cli.up.meshfile import parse

    services = parse(mesh_file.read_text(), mesh_file.name).services.values()
    return sum(
        sum(s.replicas if v.replicas is None else v.replicas for v in s.versions)
        if s.versions
        else s.replicas
        for s in services
    )


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C is ignored: ending must end."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
