"""The life of a workload on this host: launch, drain, stop, end.

A launch goes through these steps, and a failure at any of them takes the earlier ones back: choose the
capture, give a number (and with it two loopback addresses), start the proxy, tell the controller, have a
certificate signed, wait until the proxy is ready, and only then take the process in. The proxy is started
before the controller is told, because its start takes the longest.

An end goes the other way: first the endpoints, then (on a stop) the process, then the proxy, then the
cgroups.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from retia.agent import envoy
from retia.agent.bypass import Bypasses
from retia.agent.capture import Choice
from retia.agent.dns import DnsService
from retia.agent.health import HealthChecks
from retia.agent.host import HostModel
from retia.agent.keeper import KeeperError, start_stamp
from retia.agent.proxies import Proxies, RunningProxy
from retia.agent.readiness import Awaited
from retia.agent.records import LOOPBACK, Instance, Record
from retia.agent.rpc import RPC_ERRORS, describe
from retia.agent.watch import ListenWatch, ProcessGone, ProcessWatch
from retia.api.local import Launch, Launched, LocalError, UpstreamSpec
from retia.authority.errors import AuthorityError
from retia.model import annotation
from retia.node.addresses import EXPLICIT_PORT, MAX_WORKLOAD, workload_addresses
from retia.node.errors import CaptureError

SIGN_RETRY_S = 0.03
DRAIN_S = 0.5
"""From leaving the endpoints to the process's end: endpoint changes reach all proxies within some 100 ms."""
PROXY_LINGER_S = 0.5
"""How long a proxy answers callers that have not heard yet that its process has ended."""
APP_LABEL = "app"
NO_PROXY = "localhost,127.0.0.1,::1"
MAX_WORKLOADS = 1000
"""Far above what a host runs; a bound on what one caller can take."""

Progress = Callable[[str], None]
_log = structlog.get_logger("retia.agent.launch")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says."""

    pid: int
    uid: int
    gid: int


class Launcher:
    """Changes the host's workloads. Errors are :class:`~retia.api.local.LocalError`."""

    def __init__(
        self,
        model: HostModel,
        proxies: Proxies,
        dns: DnsService,
        health: HealthChecks,
        index: int,
        default_capture: str,
        suffix: str,
        locality: str,
    ) -> None:
        self._model = model
        self._proxies = proxies
        self._dns = dns
        self._health = health
        self._index = index
        self._default_capture = default_capture
        self._suffix = suffix
        self._locality = locality
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._gone: dict[str, asyncio.Event] = {}
        self.bypasses = Bypasses(model.state, model.capture, model.instances)
        self.processes = ProcessWatch(model.capture.processes, self._process_ended)
        self.listeners = ListenWatch(lambda: model.instances.values(), self._listening_changed)

    # Launch

    async def launch(self, request: Launch, peer: Peer, progress: Progress) -> Launched:
        pid = request.pid or peer.pid
        _check_owner(pid, peer)
        choice = self._choose(request)
        if len(self._model.instances) >= MAX_WORKLOADS:
            raise LocalError("unavailable", f"this host has {MAX_WORKLOADS} workloads; more are not taken")
        record = self._record(request, pid, choice)
        instance = Instance(record)
        self._model.add(instance)
        try:
            async with asyncio.timeout(request.timeout_s):
                running = await self._set_up(instance, progress)
        except TimeoutError as error:
            await self._take_back(instance)
            why = self._model.session.last_error
            reason = f"the controller is away ({why})" if self._model.away else "the proxy is not ready"
            raise LocalError("timeout", f"no launch within {request.timeout_s:g} s: {reason}") from error
        except (LocalError, asyncio.CancelledError):
            await self._take_back(instance)
            raise
        except (KeeperError, CaptureError, envoy.EnvoyError, ProcessGone, AuthorityError, OSError) as error:
            await self._take_back(instance)
            raise LocalError("unavailable", f"{record.id} can't be launched: {error}") from error
        await self._model.state.flush()
        _log.info("workload launched", workload=record.id, pid=pid, capture=record.capture)
        return _launched(record, running)

    def _choose(self, request: Launch) -> Choice:
        wanted = self._default_capture if request.capture == "auto" else request.capture
        if annotation.GATEWAY in request.annotations:
            # Nothing is captured: there is no program, and its proxy goes where it is told.
            wanted = "explicit"
        choice = self._model.capture.choose(wanted)
        if choice is None:
            reason = self._model.capture.reason
            raise LocalError("unavailable", reason, "use --capture explicit, or auto to fall back to it")
        return choice

    def _record(self, request: Launch, pid: int, choice: Choice) -> Record:
        used = {i.record.number for i in self._model.instances.values()}
        number = next(n for n in range(1, MAX_WORKLOAD + 1) if n not in used)
        name = request.name or self._instance_name(request, number)
        workload = f"{request.namespace}/{name}"
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
            raise LocalError("bad-request", f"name {name!r}: only a-z, 0-9, '-' and '.' may stand in it")
        if workload in self._model.instances:
            raise LocalError("conflict", f"workload {workload} exists already", "choose another --name")
        addresses = workload_addresses(self._index, number)
        stat = Path(f"/proc/{pid}").stat()
        return Record(
            id=workload,
            namespace=request.namespace,
            number=number,
            service=request.service,
            service_account=request.service_account or request.service or "default",
            pid=pid,
            stamp=start_stamp(pid),
            uid=stat.st_uid,
            gid=stat.st_gid,
            capture=choice.mode,
            reason=choice.reason,
            ports=request.ports,
            labels=launch_labels(request),
            annotations=request.annotations,
            locality=request.locality or self._locality,
            upstreams=self._upstreams(request),
            health=request.health,
            command=request.command,
            cwd=request.cwd,
            started=time.time(),
            published_address=addresses.published,
            app_address=addresses.app,
        )

    def _instance_name(self, request: Launch, number: int) -> str:
        base = request.service or "client"
        version = request.labels.get("version", "")
        parts = [base, re.sub(r"[^a-z0-9-]", "-", version.lower())] if version else [base]
        return "-".join([*parts, str(number)]) + self._suffix

    def _upstreams(self, request: Launch) -> tuple[UpstreamSpec, ...]:
        taken = {u.local_port: i.id for i in self._model.instances.values() for u in i.record.upstreams}
        found = []
        for spec in request.upstreams:
            if spec.local_port in taken:
                message = f"local port {spec.local_port} is an upstream of {taken[spec.local_port]} already"
                raise LocalError("conflict", message, "choose another")
            port = spec.local_port or _free_port()
            if spec.local_port:
                _check_free(port)
            taken[port] = "this workload"
            host = self._model.names.full_host(spec.host, request.namespace)
            found.append(spec.model_copy(update={"local_port": port, "host": host}))
        return tuple(found)

    async def _set_up(self, instance: Instance, progress: Progress) -> RunningProxy:
        record = instance.record
        if self._model.away:
            progress("waiting for the controller")
            await self._model.session.connected.wait()
        progress("starting the proxy")
        cgroup = self._capture(record)
        running = await self._proxies.start(record.id, record.kind, record.number, record.id, cgroup)
        self._model.tell(instance)
        self._model.tell_proxy(running)
        await self._sign(instance)
        self._model.set_secrets(running)
        if record.capture == "ebpf":
            await self._dns.open(record.id, record.namespace, record.app_address)
        progress("waiting for the proxy to be ready")
        await envoy.wait_ready(running.folder, awaited=Awaited(record, running))
        self._take_in(instance)
        return running

    def _capture(self, record: Record) -> str:
        """Begin the capture; the file by which the proxy enters its cgroup."""
        if record.capture != "ebpf":
            return ""
        open_ports = tuple(
            port
            for name in (annotation.OPEN_PORTS, annotation.EXCLUDE_INBOUND)
            for port in _ports_of(name, record.annotations.get(name, ""))
        )
        fail_open = record.annotations.get(annotation.FAIL_OPEN, "") == "true"
        capture = self._model.capture
        capture.add(record.id, record.published_address, record.app_address, open_ports, fail_open)
        return capture.proxy_cgroup(record.id)

    async def _sign(self, instance: Instance) -> None:
        """Have the certificate. The registration travels on another stream, so it may come second: then the
        controller refuses, and is asked again."""
        while True:
            channel = self._model.session.channel
            if channel is None:
                await self._model.session.connected.wait()
                continue
            try:
                reply = await self._model.keys.sign(instance.id, channel)
            except GRPCError as error:
                if error.status not in (
                    Status.PERMISSION_DENIED,
                    Status.NOT_FOUND,
                    Status.FAILED_PRECONDITION,
                ):
                    raise LocalError("unavailable", f"no certificate: {describe(error)}") from error
                if time.monotonic() - instance.since > 5.0:
                    raise LocalError(
                        "denied", f"the controller refuses a certificate: {describe(error)}"
                    ) from error
                await asyncio.sleep(SIGN_RETRY_S)
            except RPC_ERRORS:
                # The session broke; the next one says everything anew.
                await asyncio.sleep(0.1)
            else:
                self._model.identity.take_bundle(reply.trust_domain, reply.bundle_pem)
                self._model.identity.note_time(reply.controller_time)
                return

    def _take_in(self, instance: Instance) -> None:
        record = instance.record
        self.processes.add(record.id, record.pid, record.stamp)
        self._model.save(instance)
        if record.capture == "ebpf":
            self._model.capture.move(record.pid, record.id)
        self._go(instance)

    def _go(self, instance: Instance) -> None:
        """From now on the instance is looked after."""
        instance.state = "running"
        instance.since = time.monotonic()
        self._gone[instance.id] = asyncio.Event()
        if instance.record.health is not None:
            instance.passing = False
            instance.health = "not checked yet"
            self._health.start(instance, self._health_changed)
        self._model.tell(instance)
        self.listeners.hurry()

    async def _take_back(self, instance: Instance) -> None:
        self.processes.remove(instance.id)
        self._model.forget(instance.id)
        await self._dismantle(instance.id)

    # After a restart of the worker

    async def restore(self) -> None:
        """Take over what an earlier worker left: workloads whose process lives go on, others are ended."""
        for record in self._model.records():
            try:
                await self._restore(record)
            except (KeeperError, CaptureError, ProcessGone, OSError) as error:
                _log.info("a workload ended while the agent was away", workload=record.id, reason=str(error))
                self._model.forget(record.id)
                self._model.state.remove_entry("workload", record.id)
                self._model.keys.forget(record.id)
                await self._dismantle(record.id)
        self._model.keys.sweep(set(self._model.instances))
        self._model.capture.sweep(set(self._model.instances))

    async def _restore(self, record: Record) -> None:
        pid, stamp = self._survivor(record)
        instance = Instance(record)
        instance.known = True
        self._model.instances[record.id] = instance
        cgroup = self._capture(record)
        self._model.keys.load(record.id)
        running = await self._proxies.adopt(record.id, record.kind, record.number, record.id, cgroup)
        self._model.set_secrets(running)
        if record.capture == "ebpf":
            await self._dns.open(record.id, record.namespace, record.app_address)
        self.processes.add(record.id, pid, stamp)
        self._go(instance)

    def _survivor(self, record: Record) -> tuple[int, int]:
        """The process to watch. Raises :class:`ProcessGone`."""
        if start_stamp(record.pid) == record.stamp:
            return record.pid, record.stamp
        others = self._model.capture.processes(record.id)
        if others:
            return others[0], start_stamp(others[0])
        raise ProcessGone(f"process {record.pid} is gone")

    # Ends

    def drain(self, workload: str, peer: Peer) -> None:
        """Out of the endpoints; process and proxy go on."""
        instance = self._owned(workload, peer)
        if instance.state in ("running", "unhealthy"):
            instance.state = "draining"
            self._model.tell(instance)

    def bypass(self, workload: str, seconds: int, reason: str, peer: Peer) -> float:
        """Let its own calls go around its proxy (0 s: no longer); until when."""
        instance = self._owned(workload, peer)
        if not seconds:
            self.bypasses.end(workload, f"user {peer.uid} ended it")
            return 0.0
        return self.bypasses.begin(instance, seconds, reason, peer.uid).until

    def enter(self, workload: str, pid: int, peer: Peer) -> None:
        """Take a process into a captured workload's place. It is no process that the workload lives by."""
        instance = self._owned(workload, peer)
        _check_owner(pid, peer)
        if instance.record.capture != "ebpf":
            message = f"workload {workload} is captured explicitly"
            raise LocalError("conflict", message, "use its forward proxy")
        try:
            self._model.capture.move(pid, workload)
        except (CaptureError, OSError) as error:
            raise LocalError("unavailable", f"process {pid} can't be taken in: {error}") from error

    async def stop(self, workload: str, peer: Peer, drain_s: float, grace_s: float, kill: bool) -> None:
        """Drain, end the process, and wait until all is gone."""
        self.drain(workload, peer)
        instance = self._owned(workload, peer)
        gone = self._gone.get(workload)
        if gone is None:
            raise LocalError("conflict", f"workload {workload} is being launched")
        await asyncio.sleep(DRAIN_S if drain_s < 0 else drain_s)
        instance.state = "stopping"
        if not kill:
            self._process_ended(workload)
        else:
            self.processes.signal(workload, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s if kill else 10.0):
                await gone.wait()
            return
        except TimeoutError:
            self.processes.signal(workload, signal.SIGKILL)
        try:
            async with asyncio.timeout(10.0):
                await gone.wait()
        except TimeoutError as error:
            raise LocalError("timeout", f"workload {workload} does not end") from error

    def take_leave(self) -> None:
        """The agent ends: the controller forgets this host's workloads. Their processes are left alone."""
        for workload in list(self._model.instances):
            self.processes.remove(workload)
            self._health.stop(workload)
            self._model.forget(workload)

    async def end_all(self) -> None:
        """End all proxies, and what was ending already."""
        await asyncio.gather(*(self._proxies.stop(p.id, 1.0) for p in self._proxies.all()))
        if self._ends:
            await asyncio.wait(set(self._ends.values()), timeout=5.0)

    def _process_ended(self, workload: str) -> None:
        instance = self._model.instances.get(workload)
        if instance is None or workload in self._ends:
            return
        instance.state = "stopping"
        self._model.session.tell_workload_gone(workload)
        instance.known = False
        task = asyncio.create_task(self._end(instance), name=f"end {workload}")
        self._ends[workload] = task
        task.add_done_callback(lambda _: self._ends.pop(workload, None))

    async def _end(self, instance: Instance) -> None:
        workload = instance.id
        self._health.stop(workload)
        self.processes.remove(workload)
        await asyncio.sleep(PROXY_LINGER_S)
        await self._dismantle(workload)
        self._model.forget(workload)
        # Its name may be taken again, by a program of which nobody has said that it may.
        self.bypasses.end(workload, "the workload is gone")
        gone = self._gone.pop(workload, None)
        if gone is not None:
            gone.set()
        _log.info("workload ended", workload=workload)

    async def _dismantle(self, workload: str) -> None:
        await self._proxies.stop(workload)
        self._model.session.tell_proxy_gone(workload)
        await self._dns.close(workload)
        self._model.capture.remove(workload)

    def _owned(self, workload: str, peer: Peer) -> Instance:
        instance = self._model.instances.get(workload)
        if instance is None:
            raise LocalError("not-found", f"there is no workload {workload} on this host")
        if peer.uid not in (0, os.geteuid(), instance.record.uid):
            raise LocalError("denied", f"workload {workload} belongs to another user")
        return instance

    # Changes

    def _listening_changed(self, instance: Instance) -> None:
        self._model.tell(instance)

    def _health_changed(self, instance: Instance, passing: bool, text: str) -> None:
        instance.health = text
        if instance.passing == passing:
            return
        instance.passing = passing
        if instance.state in ("running", "unhealthy"):
            instance.state = "running" if passing else "unhealthy"
        self._model.tell(instance)


def _check_owner(pid: int, peer: Peer) -> None:
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError as error:
        raise LocalError("bad-request", f"there is no process {pid}") from error
    if peer.uid not in (0, owner):
        raise LocalError("denied", f"process {pid} belongs to another user")


def _launched(record: Record, running: RunningProxy) -> Launched:
    return Launched(
        workload=record.id,
        proxy=running.id,
        namespace=record.namespace,
        service=record.service,
        capture=record.capture,
        reason=record.reason,
        env=environment(record),
        published_address=record.published_address,
        app_address=record.app_address if record.capture == "ebpf" else LOOPBACK,
        explicit_port=EXPLICIT_PORT if record.capture == "explicit" else 0,
        upstreams=record.upstreams,
        log_path=str(running.log),
    )


def environment(record: Record) -> dict[str, str]:
    """What the program's environment gets. Proxy variables only where nothing else captures: and then only
    those for plain HTTP, since the mesh does the TLS."""
    env = {"RETIA_WORKLOAD": record.id, "RETIA_NAMESPACE": record.namespace, "RETIA_CAPTURE": record.capture}
    if record.capture == "explicit":
        proxy = f"http://{record.app_address}:{EXPLICIT_PORT}"
        env |= {"HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY}
    for upstream in record.upstreams:
        address = f"{LOOPBACK}:{upstream.local_port}"
        short = re.sub(r"[^A-Z0-9]", "_", upstream.host.partition(".")[0].upper())
        env[f"RETIA_UPSTREAM_{short}_{upstream.port}"] = address
        if upstream.env:
            env[upstream.env] = f"http://{address}"
    return env


def launch_labels(request: Launch) -> dict[str, str]:
    """The labels that its user gave, and ``app``, by which selectors usually go: the service's name, if the
    user gave no other."""
    return {APP_LABEL: request.service, **request.labels} if request.service else dict(request.labels)


def _ports_of(name: str, text: str) -> tuple[int, ...]:
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not all(n.isdigit() and 0 < int(n) < 65536 for n in numbers):
        raise LocalError("bad-request", f"annotation {name} {text!r}: ports with commas are needed")
    return tuple(int(n) for n in numbers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            message = f"local port {port} can't be used: {error.strerror}"
            raise LocalError("conflict", message, "choose another") from error
