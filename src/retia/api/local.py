"""The protocol of the local agent socket, and a small client for it.

A program on the host asks its agent to put a process into the mesh. Lines of JSON travel both ways over a
unix socket; who asks is known from the socket itself (``SO_PEERCRED``), so there are no credentials. A
connection carries any number of requests, one after the other. Every request is answered by zero or more
lines with ``progress`` and then exactly one line with ``result`` or ``error``.

The agent accepts root, its own user and the members of one optional group. A launched process must belong to
the caller (root may launch any).

Launching a program, in the way ``retia run`` does it: send :class:`Launch` with the own pid, wait for
:class:`Launched`, set its ``env``, and ``exec`` the command. The agent notices when the process ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from retia.model.mesh import Protocol

MAX_LINE_BYTES = 32 << 20
"""A line longer than this ends the connection (a proxy's whole configuration dump must fit)."""

_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DnsLabel = Annotated[str, Field(pattern=_LABEL, max_length=63)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
PROTOCOLS = tuple(protocol.value for protocol in Protocol)
WorkloadState = Literal["starting", "running", "unhealthy", "draining", "stopping"]
"""``starting``: not registered yet; ``draining``: out of the endpoints, its proxy goes on."""
ProxyState = Literal["starting", "ready", "down", "draining"]
"""``starting``: the Envoy has not answered yet; ``down``: there is no process."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    # Replies ignore what they do not know: the command line and the agent may differ by one version.
    model_config = ConfigDict(extra="ignore", frozen=True)


class PortSpec(_Model):
    """A port that the program listens on."""

    number: PortNumber
    """The port that its callers use."""
    app_port: int = Field(default=0, ge=0, le=65535)
    """The port that the program listens on; 0: the same."""
    protocol: Literal["http", "http2", "grpc", "tcp", "tls", "auto"] = "auto"


class UpstreamSpec(_Model):
    """A service that the program gets at a local port (explicit capture, and ``retia forward``)."""

    host: str
    """Full or short name; short names are resolved in the workload's namespace."""
    port: PortNumber
    local_port: int = Field(default=0, ge=0, le=65535)
    """0: the agent chooses a free one."""
    env: str = ""
    """An environment variable that gets ``http://127.0.0.1:<local port>``; empty: only the usual ones."""


class HealthCheck(_Model):
    """How the agent finds out whether an instance can take requests."""

    kind: Literal["http", "tcp", "grpc", "exec"]
    port: int = Field(default=0, ge=0, le=65535)
    """The program's own port; 0: its first."""
    path: str = "/"
    """``http`` only. Statuses 200 to 399 are healthy."""
    service: str = ""
    """``grpc`` only: the name in ``grpc.health.v1.HealthCheckRequest``."""
    command: tuple[str, ...] = ()
    """``exec`` only: healthy when it exits with 0. It runs as the program's user, in its folder."""
    interval_s: float = Field(default=5.0, gt=0, le=3600)
    timeout_s: float = Field(default=2.0, gt=0, le=600)
    healthy_threshold: int = Field(default=1, ge=1, le=100)
    unhealthy_threshold: int = Field(default=3, ge=1, le=100)
    start_period_s: float = Field(default=0.0, ge=0, le=3600)
    """Failures within this time after the launch are not counted."""


class Launch(_Model):
    """Put a process into the mesh: ``op`` ``launch``, answered by :class:`Launched`."""

    op: Literal["launch"] = "launch"
    service: str = ""
    """Short name; empty: a client only."""
    namespace: DnsLabel = "default"
    name: str = ""
    """The instance's name; empty: ``<service>[-<version>]-<number>``."""
    service_account: str = ""
    """Empty: the service's name, or ``default`` for clients."""
    ports: tuple[PortSpec, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    locality: str = ""
    upstreams: tuple[UpstreamSpec, ...] = ()
    capture: Literal["auto", "ebpf", "explicit"] = "auto"
    health: HealthCheck | None = None
    pid: int = Field(default=0, ge=0)
    """The process to take in; 0: the caller itself. It must not have threads or sockets of its own yet."""
    timeout_s: float = Field(default=15.0, gt=0, le=120)
    command: tuple[str, ...] = ()
    """Shown in lists, and the environment in which ``exec`` health checks run comes from the process."""
    cwd: str = ""


class Launched(_Reply):
    workload: str
    proxy: str
    namespace: str
    service: str = ""
    capture: Literal["ebpf", "explicit"]
    reason: str
    """Why this way of capture, as a sentence."""
    env: dict[str, str] = Field(default_factory=dict)
    """To be added to the program's environment; an empty value means: remove the variable."""
    published_address: str = ""
    app_address: str = ""
    explicit_port: int = 0
    upstreams: tuple[UpstreamSpec, ...] = ()
    """With the local ports that were chosen."""
    log_path: str = ""
    """The proxy's log."""


class Drain(_Model):
    """Take an instance out of the endpoints while its proxy goes on: ``op`` ``drain``; :class:`Done`."""

    op: Literal["drain"] = "drain"
    workload: str


class Stop(_Model):
    """Drain, end the process, end the proxy: ``op`` ``stop``, answered by :class:`Done` when all is gone."""

    op: Literal["stop"] = "stop"
    workload: str
    drain_s: float = Field(default=-1.0, ge=-1, le=3600)
    """How long callers get to notice before the process is told to end; -1: 0.5 s, in which
    endpoint changes reach every proxy (some 100 ms) with room to spare."""
    grace_s: float = Field(default=10.0, ge=0, le=3600)
    """From SIGTERM to SIGKILL."""
    signal: bool = True
    """False: leave the process alone (its parent ends it)."""


class Enter(_Model):
    """Take a process into the place of a captured workload, so that its connections are that workload's:
    ``op`` ``enter``, answered by :class:`Done`. The process must belong to the caller, and so must the
    workload (root may use any); it ends by itself, and soon."""

    op: Literal["enter"] = "enter"
    workload: str
    pid: int = Field(ge=1)


class Bypass(_Model):
    """Let a captured workload's own calls go around its proxy for a time: ``op`` ``bypass``, answered by
    :class:`Bypassed`."""

    op: Literal["bypass"] = "bypass"
    workload: str
    seconds: int = Field(ge=0, le=24 * 3600)
    """0: end it now."""
    reason: str = Field(default="", max_length=1000)
    """Logged."""


class Bypassed(_Reply):
    workload: str
    until: float = 0.0
    """Seconds since 1970; 0: it uses its proxy."""


class Workloads(_Model):
    """``op`` ``workloads``, answered by :class:`WorkloadList`."""

    op: Literal["workloads"] = "workloads"


class WorkloadInfo(_Reply):
    id: str
    namespace: str
    service: str = ""
    service_account: str = ""
    state: WorkloadState = "running"
    pid: int = 0
    capture: Literal["ebpf", "explicit"] = "explicit"
    reason: str = ""
    ports: tuple[PortSpec, ...] = ()
    listening: tuple[int, ...] = ()
    """Those of ``ports`` (by ``number``) on which the program has been seen listening."""
    healthy: bool = True
    health: str = ""
    """The last check's result, as a sentence."""
    published_address: str = ""
    app_address: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    proxy: str = ""
    started: float = 0.0
    """Seconds since 1970."""
    command: tuple[str, ...] = ()
    upstreams: tuple[UpstreamSpec, ...] = ()
    explicit_port: int = 0
    certificate_expiry: float = 0.0
    registered: bool = False
    """The controller has been told (and was there to be told)."""
    bypass_until: float = 0.0
    """Until when its own calls go around its proxy, in seconds since 1970; 0: they don't."""
    bypass_reason: str = ""


class WorkloadList(_Reply):
    workloads: tuple[WorkloadInfo, ...] = ()


class Proxies(_Model):
    """``op`` ``proxies``, answered by :class:`ProxyList`."""

    op: Literal["proxies"] = "proxies"


class ProxyInfo(_Reply):
    id: str
    kind: str = "sidecar"
    workload: str = ""
    state: ProxyState = "starting"
    connected: bool = False
    pid: int = 0
    restarts: int = 0
    envoy_version: str = ""
    allocated_bytes: int = 0
    rss_bytes: int = 0
    certificate_expiry: float = 0.0
    log_path: str = ""
    admin_path: str = ""
    acked: int = 0
    nacked: int = 0


class ProxyList(_Reply):
    proxies: tuple[ProxyInfo, ...] = ()


class Admin(_Model):
    """A question to a proxy's admin interface: ``op`` ``admin``, answered by :class:`AdminReply`.

    Only reading paths are allowed; private keys are redacted.
    """

    op: Literal["admin"] = "admin"
    proxy: str
    path: str


class AdminReply(_Reply):
    status: int
    body: str


class Info(_Model):
    """``op`` ``info``, answered by :class:`AgentInfo`."""

    op: Literal["info"] = "info"


class Probe(_Reply):
    """One kernel feature that capture needs."""

    name: str
    ok: bool
    reason: str = ""


class AgentInfo(_Reply):
    software: str
    host: str
    index: int = 0
    pid: int = 0
    keeper_pid: int = 0
    controller: str = ""
    connected: bool = False
    """Whether the session to the controller stands."""
    disconnected_s: float = 0.0
    last_error: str = ""
    envoy_path: str = ""
    envoy_version: str = ""
    capture: Literal["ebpf", "explicit"] = "explicit"
    reason: str = ""
    probes: tuple[Probe, ...] = ()
    trust_domain: str = ""
    host_certificate_expiry: float = 0.0
    clock_skew_s: float = 0.0
    """The controller's clock minus this host's, when last compared."""
    gateway_address: str = ""
    gateway_port: int = 0
    names: int = 0
    """Entries in the table of names."""
    state_error: str = ""
    """Why the state on disk can't be kept, as a sentence; empty: it can."""


class Shutdown(_Model):
    """End the agent with its proxies: ``op`` ``shutdown``, answered by :class:`Done` before it begins."""

    op: Literal["shutdown"] = "shutdown"


class Done(_Reply):
    done: bool = True


Request = Annotated[
    Launch | Drain | Stop | Enter | Bypass | Workloads | Proxies | Admin | Info | Shutdown,
    Field(discriminator="op"),
]
REQUEST: TypeAdapter[Any] = TypeAdapter(Request)


class Failure(_Reply):
    """Why a request was not carried out. ``code`` is one of ``bad-request``, ``denied``, ``not-found``,
    ``conflict``, ``unavailable``, ``timeout``, ``internal``."""

    code: str
    message: str
    remedy: str = ""


class Line(_Reply):
    """One line from the agent."""

    progress: str = ""
    result: dict[str, Any] | None = None
    error: Failure | None = None


class LocalError(Exception):
    """A request failed; ``code`` as in :class:`Failure`, or ``unreachable`` where no agent answers."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.code = code
        self.message = message
        self.remedy = remedy


def agent_socket(home: Path, environ: dict[str, str] | None = None) -> Path:
    """Where the agent's socket is: ``RETIA_AGENT_SOCKET``, otherwise in the state folder."""
    given = (os.environ if environ is None else environ).get("RETIA_AGENT_SOCKET", "")
    return Path(given) if given else home / "run" / "agent.sock"


R = TypeVar("R", bound=_Reply)


class LocalClient:
    """A blocking connection to the agent. Use it as a context manager.

    Raises :class:`LocalError` for everything that can go wrong.
    """

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self._path = path
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise _unreachable(path, error) from error

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, request: _Model, reply: type[R], progress: Callable[[str], None] | None = None) -> R:
        """Send ``request`` and return its ``reply``; ``progress`` gets the lines that come before it."""
        try:
            self._socket.sendall(request.model_dump_json().encode() + b"\n")
            while True:
                line = Line.model_validate_json(self._read_line())
                if line.error is not None:
                    raise LocalError(line.error.code, line.error.message, line.error.remedy)
                if line.result is not None:
                    return reply.model_validate(line.result)
                if progress is not None and line.progress:
                    progress(line.progress)
        except TimeoutError as error:
            raise LocalError("timeout", f"the agent at {self._path} did not answer in time") from error
        except OSError as error:
            raise _unreachable(self._path, error) from error
        except ValidationError as error:
            raise LocalError(
                "internal", f"the agent at {self._path} answered what this version can't read"
            ) from error

    def _read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            data = self._socket.recv(1 << 16)
            if not data:
                raise LocalError("unreachable", f"the agent at {self._path} closed the connection")
            self._buffer += data
            if len(self._buffer) > MAX_LINE_BYTES:
                raise LocalError("internal", f"the agent at {self._path} sent an overlong line")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _unreachable(path: Path, error: OSError) -> LocalError:
    if isinstance(error, PermissionError):
        message = f"the agent's socket {path} may not be used by this user"
        return LocalError("denied", message, "join its group")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        remedy = "start one with 'retia up' or 'retia agent'"
        return LocalError("unreachable", f"no agent answers at {path}", remedy)
    return LocalError("unreachable", f"the agent at {path} can't be reached: {error.strerror or error}")
