"""How workloads are captured on this host: by eBPF where it can, otherwise explicitly.

A thin layer over :mod:`retia.node.capture`: it remembers why eBPF is not to be had, keeps the capture map in
step with the table of names, and makes the errors of a machine without eBPF impossible to meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import structlog

from retia.agent.names import Entry
from retia.model.mesh import Protocol
from retia.node import features
from retia.node.capture import HostCapture, InstanceAddresses
from retia.node.cgroups import pids
from retia.node.errors import CaptureError

Mode = Literal["ebpf", "explicit"]
Address = tuple[str, int]
_NOWHERE: Mapping[Address, Address] = {}
_log = structlog.get_logger("retia.agent.capture")


@dataclass(frozen=True, slots=True)
class Choice:
    """A way of capture, and why as a sentence."""

    mode: Mode
    reason: str


class Capture:
    """Capture of one mesh on this host. ``wanted`` is the host's default: auto, ebpf or explicit."""

    def __init__(self, index: int, wanted: str) -> None:
        self._index = index
        self._host: HostCapture | None = None
        self.probes: list[features.Feature] = []
        self.reason = ""
        if wanted == "explicit":
            self.reason = "explicit capture was chosen for this host"
            return
        self._open()

    def _open(self) -> None:
        try:
            self.probes = features.probe()
            features.require(self.probes)
            self._host = HostCapture.open(self._index)
            self.reason = "this kernel and these rights allow eBPF capture"
        except (CaptureError, OSError) as error:
            self.reason = str(error)

    @property
    def available(self) -> bool:
        """Whether eBPF capture is."""
        return self._host is not None

    def choose(self, wanted: str) -> Choice | None:
        """The way for a workload that wants ``auto``, ``ebpf`` or ``explicit``; ``None``: not to be had."""
        if wanted == "explicit":
            return Choice("explicit", "explicit capture was asked for")
        if self._host is not None:
            return Choice("ebpf", self.reason)
        return Choice("explicit", self.reason) if wanted == "auto" else None

    def join(self, keeper: int) -> None:
        """Make the keeper (whose sockets answer DNS) and this process known as the agent."""
        if self._host is not None:
            for pid in (keeper, None):
                self._host.join(pid)

    def add(
        self, workload: str, published: str, app: str, open_ports: tuple[int, ...], fail_open: bool
    ) -> None:
        """Begin to capture what will run as ``workload``. Raises ``CaptureError``."""
        host = self._required()
        address = InstanceAddresses(workload, published, app, open_ports=open_ports, fail_open=fail_open)
        host.add_instance(address)

    def proxy_cgroup(self, workload: str) -> str:
        """The ``cgroup.procs`` file for the workload's proxy. Raises ``CaptureError``."""
        return str(self._required().proxy_cgroup(workload) / "cgroup.procs")

    def move(self, pid: int, workload: str) -> None:
        """Raises ``CaptureError``, ``ProcessLookupError``."""
        host = self._required()
        host.move(pid, host.instances()[workload])

    def workload_cgroup(self, workload: str) -> str:
        """The ``cgroup.procs`` file of a captured workload; empty if it is not captured."""
        found = self._host.instances().get(workload) if self._host is not None else None
        return str(found / "cgroup.procs") if found is not None else ""

    def processes(self, workload: str) -> tuple[int, ...]:
        """All processes of a captured workload."""
        found = self._host.instances().get(workload) if self._host is not None else None
        return pids(found) if found is not None else ()

    def remove(self, workload: str) -> None:
        """End the capture of a workload and kill what is left of it. Never raises."""
        if self._host is None:
            return
        for action in (self._host.remove_instance, self._host.remove_proxy):
            try:
                action(workload, kill=True)
            except (CaptureError, OSError) as error:
                _log.error("a cgroup can't be removed", workload=workload, error=str(error))

    def sweep(self, known: set[str]) -> None:
        """Remove what belongs to nobody any more."""
        if self._host is not None:
            for stale in (set(self._host.instances()) | set(self._host.proxies())) - known:
                self.remove(stale)

    def set_bypass(self, workload: str, value: bool, fail_open: bool) -> None:
        """Whether a workload's own connections go around its proxy. Raises ``CaptureError``."""
        self._required().set_bypass(workload, value, fail_open)

    def set_names(self, entries: Iterable[Entry], nearest: Mapping[Address, Address] = _NOWHERE) -> None:
        """Capture what the table names, and nothing else. ``nearest``: by host and port of a service, where
        it can be called without a proxy."""
        if self._host is None:
            return
        known = list(entries)
        try:
            self._host.replace_destinations(destinations(known), fallbacks(known, nearest))
        except (CaptureError, OSError) as error:
            _log.error("the capture map can't be written", error=str(error))

    def close(self, teardown: bool) -> None:
        """Let go, or with ``teardown`` take everything away."""
        if self._host is not None:
            try:
                self._host.close(teardown=teardown)
            except (CaptureError, OSError) as error:
                _log.error("capture can't be taken away", error=str(error))
            self._host = None

    def _required(self) -> HostCapture:
        if self._host is None:
            raise CaptureError(self.reason)
        return self._host


def fallbacks(entries: Iterable[Entry], nearest: Mapping[Address, Address]) -> dict[Address, Address]:
    """Where connections to virtual addresses go that pass their proxy by: to an instance on this host, or to
    an endpoint that is no loopback address (of those every host has its own)."""
    found: dict[Address, Address] = {}
    for entry in entries:
        if not _is_ipv4(entry.vip):
            continue
        for number, _ in entry.ports:
            target = nearest.get((entry.host, number)) or _outside(entry)
            if target is not None:
                found[entry.vip, number] = target
    return found


def _outside(entry: Entry) -> Address | None:
    for endpoint in entry.endpoints:
        address, _, port = endpoint.rpartition(":")
        if _is_ipv4(address) and not address.startswith("127.") and port.isdigit() and len(entry.ports) == 1:
            return address, int(port)
    return None


def destinations(entries: Iterable[Entry]) -> dict[tuple[str, int], Protocol]:
    """The capture map: every virtual address with its ports, and every address of an instance.

    An address that two services claim is left to its first bytes, unless they agree on the protocol.
    """
    found: dict[tuple[str, int], Protocol] = {}
    for entry in entries:
        protocols = {number: _protocol(text) for number, text in entry.ports}
        if _is_ipv4(entry.vip):
            found.update({(entry.vip, number): protocol for number, protocol in protocols.items()})
        single = next(iter(protocols.values())) if len(set(protocols.values())) == 1 else Protocol.AUTO
        for endpoint in entry.endpoints:
            address, _, port = endpoint.rpartition(":")
            if not _is_ipv4(address) or not port.isdigit():
                continue
            key = (address, int(port))
            protocol = protocols.get(key[1], single)
            found[key] = protocol if found.get(key, protocol) == protocol else Protocol.AUTO
    return found


def _protocol(text: str) -> Protocol:
    try:
        return Protocol(text)
    except ValueError:
        return Protocol.AUTO


def _is_ipv4(address: str) -> bool:
    parts = address.split(".")
    return len(parts) == 4 and all(p.isdigit() and int(p) < 256 for p in parts)
