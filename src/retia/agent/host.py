"""The host as the controller sees it: its workloads and proxies, and what passes between them.

This is the middle of the worker. The session calls it with what the controller says, the proxies' streams
call it with what proxies want and have, and launching, watching and checking change the workloads in it.
Nothing here waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog

from retia import __version__
from retia._generated import agent_pb2 as pb
from retia.agent import envoy
from retia.agent.capture import Capture
from retia.agent.identity import HostIdentityKeeper, WorkloadKeys
from retia.agent.names import NameTable
from retia.agent.paths import Paths
from retia.agent.proxies import Proxies, RunningProxy
from retia.agent.records import Instance, Record, gateway_message, sidecar_message
from retia.agent.rpc import Message
from retia.agent.session import PROTOCOL, Session, name_of, resource_of
from retia.agent.state import State
from retia.agent.validate import complaint
from retia.model.mesh import ProxyKind
from retia.model.resource import Name, Resource, TypeUrl

WORKLOAD_KIND = "workload"
WORKLOAD_FILE = "workload.json"
_log = structlog.get_logger("retia.agent.host")


VALIDATE = "validate"
"""The path of a query that asks for a validation instead of a proxy."""


class HostModel:
    """Implements :class:`retia.agent.session.Host` and :class:`retia.agent.xds.Listener`.

    ``proxies`` and ``session`` are set right after construction (they need this object themselves).
    """

    proxies: Proxies
    session: Session

    def __init__(
        self,
        host: str,
        paths: Paths,
        state: State,
        names: NameTable,
        identity: HostIdentityKeeper,
        keys: WorkloadKeys,
        capture: Capture,
        gateway: tuple[str, int] | None,
        advertise_address: str,
    ) -> None:
        self.host = host
        self._paths = paths
        self.state = state
        self.names = names
        self.identity = identity
        self.keys = keys
        self.capture = capture
        self.gateway = gateway
        """Address and port of the host gateway; ``None``: this host has none."""
        self._advertise_address = advertise_address
        self.instances: dict[str, Instance] = {}
        self._standby_seen: dict[str, set[Name]] = {}
        """What the controller has said of each workload's standby copy in this session, until it is
        complete."""
        self._standby_swept: set[str] = set()
        state.refill = self._refill
        names.changed = self._names_changed
        identity.on_bundle = self._bundle_changed

    @property
    def away(self) -> bool:
        """Whether the controller is."""
        return not self.session.connected.is_set()

    @property
    def hopeless(self) -> bool:
        """Whether the controller is away and no answer of it need be waited for."""
        return self.away and not self.session.hopeful

    # Workloads

    def add(self, instance: Instance) -> None:
        self.instances[instance.id] = instance
        self.save(instance)

    def nearest(self) -> dict[tuple[str, int], tuple[str, int]]:
        """Where each service and port can be called in plaintext on this host: at the published address of
        one of its instances."""
        found: dict[tuple[str, int], tuple[str, int]] = {}
        for instance in sorted(self.instances.values(), key=lambda each: each.id):
            record = instance.record
            if not record.service or record.capture != "ebpf" or record.gateway:
                continue
            host = self.names.full_host(record.service, record.namespace)
            for port in record.ports:
                found.setdefault((host, port.number), (record.published_address, port.number))
        return found

    def save(self, instance: Instance) -> None:
        """Write the workload down, and once more beside its proxy: if the database were lost while no worker
        runs, the proxies would have no owner."""
        self.state.put_entry(WORKLOAD_KIND, instance.id, instance.record.model_dump(mode="json"))
        path = self._paths.proxy(instance.record.number) / WORKLOAD_FILE
        if path.parent.is_dir():
            try:
                path.write_text(instance.record.model_dump_json(), encoding="utf-8")
            except OSError as error:
                _log.error("a workload's record can't be written", path=str(path), error=error.strerror)

    def tell(self, instance: Instance) -> None:
        """The controller learns what the instance is like now."""
        instance.known = True
        self.session.tell_workload(instance.message(self.gateway))

    def tell_proxy(self, running: RunningProxy) -> None:
        self.session.tell_proxy(self._proxy_message(running))

    def forget(self, workload: str) -> None:
        """The workload is no more: for the controller and on disk."""
        instance = self.instances.pop(workload, None)
        if instance is None:
            return
        self.session.tell_workload_gone(workload)
        self.state.remove_entry(WORKLOAD_KIND, workload)
        self.state.drop("standby", workload)
        self.keys.forget(workload)

    def records(self) -> list[Record]:
        """Workloads that an earlier worker wrote down."""
        found: dict[str, Record] = {}
        for key, value in self.state.entries(WORKLOAD_KIND).items():
            try:
                found[key] = Record.model_validate(value)
            except ValueError as error:
                _log.error("a workload's record can't be read", workload=key, error=str(error))
        for path in self._paths.run.glob(f"p/*/{WORKLOAD_FILE}"):
            try:
                record = Record.model_validate_json(path.read_bytes())
            except (OSError, ValueError) as error:
                _log.error("a workload's record can't be read", path=str(path), error=str(error))
            else:
                found.setdefault(record.id, record)
        return list(found.values())

    def set_secrets(self, running: RunningProxy) -> None:
        """Give a proxy its workload's certificate and the bundle."""
        pair = self.keys.get(running.workload)
        if pair is None or not self.identity.bundle_pem:
            return
        running.certificate_expiry = pair.expiry
        running.xds.changed(running.world.set_secrets(pair, self.identity.bundle_pem))

    def renewed(self, workload: str) -> None:
        """A workload has a new certificate."""
        running = self.proxies.get(workload)
        if running is not None:
            self.set_secrets(running)

    # The session's questions

    def hello(self) -> Message:
        message = pb.Hello(
            protocol=PROTOCOL,
            host=self.host,
            software=f"retia-agent/{__version__}",
            advertise_address=self._advertise_address,
            gateway_port=self.gateway[1] if self.gateway else 0,
            names_revision=self.names.revision,
            names_epoch=self.names.epoch,
            agent_time=int(time.time()),
        )
        message.workloads.extend(i.message(self.gateway) for i in self.instances.values() if i.known)
        message.proxies.extend(
            self._proxy_message(running)
            for running in self.proxies.all()
            if running.kind is ProxyKind.HOST_GATEWAY or self._is_known(running.workload)
        )
        return message

    def subscriptions(self) -> dict[tuple[str, TypeUrl], list[str]]:
        found: dict[tuple[str, TypeUrl], list[str]] = {}
        for running in self.proxies.all():
            names = running.world.subscriptions() | set(running.xds.wanted)
            for name in sorted(names, key=str):
                found.setdefault((running.id, name.type), []).append(name.name)
        return found

    def statuses(self) -> Iterable[tuple[str, Message]]:
        for running in self.proxies.all():
            for name, version in running.xds.acked.items():
                yield running.id, _status(name, version, "acked")
            for name, (version, error) in running.xds.nacked.items():
                yield running.id, _status(name, version, "nacked", error)

    def _is_known(self, workload: str) -> bool:
        instance = self.instances.get(workload)
        return instance is not None and instance.known

    def _proxy_message(self, running: RunningProxy) -> Message:
        held = running.world.held()
        if running.kind is ProxyKind.HOST_GATEWAY:
            address, port = self.gateway or ("", 0)
            return gateway_message(running.id, address, port, held)
        return sidecar_message(self.instances[running.workload].record, held)

    # What the controller says

    def on_connected(self, welcome: Message) -> None:
        self.identity.patient = True
        self.identity.note_time(welcome.controller_time)
        self._standby_seen.clear()
        self._standby_swept.clear()

    def on_disconnected(self) -> None:
        for running in self.proxies.all():
            running.xds.answer_waiting()

    def on_resources(self, message: Message) -> None:
        running = self.proxies.get(message.proxy)
        if running is None:
            return
        resources = [r for r in map(resource_of, message.resources) if r is not None]
        removed = [n for n in map(name_of, message.removed) if n is not None]
        running.xds.changed(running.world.apply(resources, removed))

    def on_standby(self, message: Message) -> None:
        workload = message.workload
        if workload not in self.instances:
            return
        swept = workload in self._standby_swept
        seen = set() if swept else self._standby_seen.setdefault(workload, set())
        for part in message.resources:
            resource = resource_of(part)
            if resource is not None:
                seen.add(Name(resource.type, resource.name))
                self.state.put("standby", workload, resource)
        for gone in message.removed:
            name = name_of(gone)
            if name is not None:
                seen.discard(name)
                self.state.remove("standby", workload, name)
        if message.complete and workload not in self._standby_swept:
            # Once a session: from then on the controller says itself what is gone.
            self._standby_swept.add(workload)
            for stale in self.state.standby_names(workload) - self._standby_seen.pop(workload):
                self.state.remove("standby", workload, stale)

    def on_names(self, message: Message) -> None:
        self.names.apply(message)

    def on_mesh(self, message: Message) -> None:
        self.identity.take_bundle(message.trust_domain, message.bundle_pem)

    async def answer(self, query: Message) -> Message:
        if query.path == VALIDATE:
            status, body = await self._validate([resource.wire for resource in query.resources])
        else:
            status, body = await self.ask(query.proxy, query.path)
        return pb.QueryReply(id=query.id, status=status, body=body)

    async def _validate(self, wires: list[bytes]) -> tuple[int, bytes]:
        """Whether Envoy accepts resources. Never raises."""
        try:
            wrong = await complaint(self.proxies.binary.path, wires)
        except (envoy.EnvoyError, OSError) as error:
            return 503, str(error).encode()
        return (422, wrong.encode()) if wrong else (200, b"")

    async def ask(self, proxy: str, path: str) -> tuple[int, bytes]:
        """A reading question to a proxy's admin interface: status and body. Never raises.

        ``path`` may stand with or without its leading slash.
        """
        running = self.proxies.get(proxy)
        if running is None:
            return 404, f"there is no proxy {proxy} on host {self.host}".encode()
        path = f"/{path.removeprefix('/')}"
        if not envoy.is_allowed(path):
            return 403, f"{path} is not among the questions that may be asked".encode()
        try:
            answer = await envoy.ask(running.folder / "admin.sock", path)
        except envoy.EnvoyError as error:
            return 503, str(error).encode()
        return answer.status, envoy.redact(answer.body)

    # What proxies want and have

    def on_wanted(self, proxy: str, names: list[Name]) -> None:
        self.session.subscribe(proxy, names)
        learned = [n for n in names if n.type in (TypeUrl.VIRTUAL_HOST, TypeUrl.CLUSTER)]
        if learned:
            self.session.tell_learned(proxy, learned)

    def on_gone(self, proxy: str, names: list[Name]) -> None:
        self.session.subscribe(proxy, names, gone=True)

    def on_acked(self, proxy: str, resource: Resource) -> None:
        name = Name(resource.type, resource.name)
        self.session.tell_status(proxy, _status(name, resource.version, "acked"))

    def on_removed(self, proxy: str, name: Name) -> None:
        self.session.tell_status(proxy, _status(name, "", "removed"))

    def on_nacked(self, proxy: str, resource: Resource, error: str) -> None:
        name = Name(resource.type, resource.name)
        self.session.tell_status(proxy, _status(name, resource.version, "nacked", error))

    def tell_health(self, running: RunningProxy) -> None:
        self.session.tell_health(running.id, running.message())

    # Changes that concern everybody

    def _names_changed(self) -> None:
        self.capture.set_names(self.names.entries(), self.nearest())

    def _bundle_changed(self) -> None:
        for running in self.proxies.all():
            self.set_secrets(running)

    def _refill(self) -> None:
        """The file on disk was lost: write everything anew."""
        self.names.refill()
        for instance in self.instances.values():
            self.save(instance)
        for running in self.proxies.all():
            for resource in running.world.held():
                self.state.put("held", running.id, resource)


def _status(name: Name, version: str, state: str, error: str = "") -> Message:
    return pb.ResourceStatus(type_url=name.type, name=name.name, version=version, state=state, error=error)
