"""Health checks: whether an instance can take requests.

HTTP, TCP and gRPC checks go from the agent to the program's own port, past its proxy (the agent's sockets
may reach it under eBPF capture). ``exec`` checks run as the program's user, in its folder, with its
environment and inside its cgroup, so that "localhost" is the program's own. One result does not decide:
thresholds do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from retia.agent.capture import Capture
from retia.agent.keeper import KeeperError
from retia.agent.keeping import KeeperClient, ProcessEvent, Program
from retia.agent.records import Instance
from retia.agent.rpc import RPC_ERRORS, alone, describe
from retia.aio.grpc import MixedCodec
from retia.api.local import HealthCheck

EAGER_S = 0.25
"""Between the first checks, until one passes: a fresh instance should not wait for a whole interval."""
MAX_HEAD_BYTES = 16384
GRPC_METHOD = "/grpc.health.v1.Health/Check"
SERVING = 1

Changed = Callable[[Instance, bool, str], None]
_log = structlog.get_logger("retia.agent.health")


class Unhealthy(Exception):  # noqa: N818
    """A check failed; the text says how."""


class Judge:
    """Counts results: ``healthy_threshold`` passes in a row make healthy, ``unhealthy_threshold`` failures
    make unhealthy. Before the first verdict an instance is not healthy."""

    def __init__(self, check: HealthCheck, started: float) -> None:
        self._check = check
        self._started = started
        self._passes = 0
        self._failures = 0
        self.healthy = False

    def passed(self) -> None:
        self._passes += 1
        self._failures = 0
        if self._passes >= self._check.healthy_threshold:
            self.healthy = True

    def failed(self, now: float) -> None:
        self._passes = 0
        if now - self._started < self._check.start_period_s:
            return
        self._failures += 1
        if self._failures >= self._check.unhealthy_threshold:
            self.healthy = False


class HealthChecks:
    """Runs the checks of all instances."""

    def __init__(self, keeper: KeeperClient, capture: Capture) -> None:
        self._keeper = keeper
        self._capture = capture
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._exits: dict[str, asyncio.Future[int | None]] = {}

    def start(self, instance: Instance, changed: Changed) -> None:
        """Check an instance until :meth:`stop`; ``changed`` gets each result."""
        self.stop(instance.id)
        task = asyncio.create_task(self._run(instance, changed), name=f"health {instance.id}")
        self._tasks[instance.id] = task

    def stop(self, workload: str) -> None:
        task = self._tasks.pop(workload, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        for workload in list(self._tasks):
            self.stop(workload)

    def on_process(self, event: ProcessEvent) -> None:
        """The keeper tells of an end."""
        future = self._exits.pop(event.name, None) if event.ended else None
        if future is not None and not future.done():
            future.set_result(event.status)

    async def _run(self, instance: Instance, changed: Changed) -> None:
        check = instance.record.health
        if check is None:
            return
        loop = asyncio.get_running_loop()
        judge = Judge(check, loop.time())
        while True:
            try:
                async with asyncio.timeout(check.timeout_s):
                    await self.once(instance, check)
            except TimeoutError:
                judge.failed(loop.time())
                text = f"no answer within {check.timeout_s:g} s"
            except Unhealthy as error:
                judge.failed(loop.time())
                text = str(error)
            else:
                judge.passed()
                text = "passed"
            changed(instance, judge.healthy, text)
            await asyncio.sleep(check.interval_s if judge.healthy else min(EAGER_S, check.interval_s))

    async def once(self, instance: Instance, check: HealthCheck) -> None:
        """One check. Raises :class:`Unhealthy`."""
        if check.kind == "exec":
            await self._check_exec(instance, check)
            return
        port = check.port or next((p.app_port or p.number for p in instance.record.ports), 0)
        if not port:
            raise Unhealthy("the check names no port and the workload has none")
        try:
            if check.kind == "http":
                await check_http(instance.listen_address, port, check.path)
            elif check.kind == "grpc":
                await check_grpc(instance.listen_address, port, check.service)
            else:
                await check_tcp(instance.listen_address, port)
        except ConnectionRefusedError as error:
            raise Unhealthy(f"nothing listens on port {port}") from error
        except OSError as error:
            raise Unhealthy(f"port {port}: {error.strerror or error}") from error

    async def _check_exec(self, instance: Instance, check: HealthCheck) -> None:
        record = instance.record
        name = f"check:{record.id}"
        environment, groups = _surroundings(record.pid)
        program = Program(
            name=name,
            argv=check.command or ("true",),
            env=environment,
            cgroup=self._capture.workload_cgroup(record.id),
            log="/dev/null",
            cwd=record.cwd,
            uid=record.uid,
            gid=record.gid,
            groups=groups,
        )
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._exits[name] = future
        try:
            await self._keeper.spawn(program)
            status = await future
        except KeeperError as error:
            raise Unhealthy(str(error)) from error
        except asyncio.CancelledError:
            # The time is over (or the checks end): the command must not outlive its check.
            with contextlib.suppress(KeeperError):
                await asyncio.shield(self._keeper.stop(name, 0.0))
            raise
        finally:
            self._exits.pop(name, None)
        if status != 0:
            raise Unhealthy(f"{check.command[0] if check.command else 'true'} ended with status {status}")


async def check_tcp(address: str, port: int) -> None:
    """Raises ``OSError`` where no connection is made."""
    _, writer = await asyncio.open_connection(address, port)
    writer.close()


async def check_http(address: str, port: int, path: str) -> None:
    """Raises :class:`Unhealthy` for a status outside 200 to 399, ``OSError``."""
    reader, writer = await asyncio.open_connection(address, port, limit=MAX_HEAD_BYTES)
    try:
        target = path if path.startswith("/") else f"/{path}"
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: localhost:{port}",
            "User-Agent: retia",
            "Connection: close",
        )
        head = "\r\n".join(lines) + "\r\n\r\n"
        writer.write(head.encode("latin-1", errors="replace"))
        line = await reader.readuntil(b"\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unhealthy("the answer is no HTTP") from error
    finally:
        writer.close()
    status = parse_status(line)
    if not 200 <= status < 400:
        raise Unhealthy(f"HTTP status {status} for {path}")


def parse_status(line: bytes) -> int:
    """The status in the first line of an HTTP answer. Raises :class:`Unhealthy`."""
    parts = line.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].strip().isdigit():
        raise Unhealthy("the answer is no HTTP")
    return int(parts[1])


async def check_grpc(address: str, port: int, service: str) -> None:
    """``grpc.health.v1``. Raises :class:`Unhealthy`, ``OSError``."""
    channel = Channel(address, port, codec=MixedCodec())
    try:
        name = service.encode()
        request = b"\x0a" + bytes([len(name)]) + name if name else b""
        method: Any = UnaryUnaryMethod(channel, GRPC_METHOD, bytes, bytes)
        reply: bytes = await alone(method(request))
    except GRPCError as error:
        raise Unhealthy(f"gRPC status {error.status.name}") from error
    except OSError:
        raise
    except RPC_ERRORS as error:
        raise Unhealthy(describe(error)) from error
    finally:
        channel.close()
    status = reply[1] if len(reply) >= 2 and reply[0] == 8 else 0
    if status != SERVING:
        raise Unhealthy(f"gRPC health status {status}, not SERVING")


def _surroundings(pid: int) -> tuple[dict[str, str], list[int] | None]:
    """Environment and supplementary groups of a process."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}, None
    pairs = (item.partition("=") for item in raw.decode(errors="surrogateescape").split("\0") if item)
    groups = next((line.split()[1:] for line in status.splitlines() if line.startswith("Groups:")), [])
    return {key: value for key, _, value in pairs}, [int(g) for g in groups]
