"""Capture of a host's workloads by eBPF: what the agent calls.

Programs attached to a mesh's branch of the cgroup tree rewrite what the workloads in it ask the kernel for
(see ``docs/reference/capture.md``). This module makes the branch, loads and pins the programs, and keeps
their maps.

At start :meth:`HostCapture.open` re-adopts what a former agent pinned: its cgroups, maps and links go on
working while no agent runs, and a new build's programs replace the old ones link by link with no moment
between. When idle it costs nothing. On failure of the agent traffic flows on as it was; on failure of a
proxy connections are refused, or pass it by for an instance that may *fail open*. :meth:`HostCapture.close`
with ``teardown`` takes everything away: cgroups, pins, and the mount of bpffs if an agent made it.

Calls are quick (microseconds to a few milliseconds), synchronous, and not to be made from two threads at
once::

    features.require(features.probe())
    capture = HostCapture.open(index)
    capture.join()  # the agent itself, before it opens DNS sockets
    cgroup = capture.add_instance(InstanceAddresses("default/web-0", "127.64.0.1", "127.65.0.1"))
    proxy = capture.proxy_cgroup("default/web-0")  # an Envoy of its instance's name serves that instance
    capture.move(pid, cgroup)  # then exec the program
    capture.set_destination("240.240.0.5", 80, Protocol.HTTP)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NewType, Self

from retia.model.mesh import Protocol
from retia.node import bpf, bpffs, cgroups, layout, loader
from retia.node.addresses import (
    DNS_PORT,
    OUTBOUND_AUTO_PORT,
    OUTBOUND_HTTP_PORT,
    OUTBOUND_TCP_PORT,
    check_index,
)
from retia.node.bpf import Handle, Map
from retia.node.errors import CaptureError
from retia.node.layout import Member, MemberFlag, Role
from retia.node.loader import Bundle, Place

CgroupPath = NewType("CgroupPath", Path)
"""The folder of a cgroup, to be given to :meth:`HostCapture.move`."""

_GrantTest = Callable[[int, str], bool]

NO_LISTENER = 15000
"""A port below the proxy's own at which no proxy listens, and no program either."""
_FIRST = layout.WORD.pack(0)
_V6ONLY = Path("/proc/sys/net/ipv6/bindv6only")
_FIB = Path("/proc/net/fib_trie")


@dataclass(frozen=True, slots=True)
class InstanceAddresses:
    """One workload, as capture needs to know it. The proxy's listeners and DNS are at ``app``."""

    id: str
    published: str
    """Where its proxy listens for callers. The programs do not read it."""
    app: str
    """Where its own listeners are moved to."""
    http_port: int = OUTBOUND_HTTP_PORT
    auto_port: int = OUTBOUND_AUTO_PORT
    tcp_port: int = OUTBOUND_TCP_PORT
    dns_port: int = DNS_PORT
    """0: the workload's DNS is left alone."""
    open_ports: tuple[int, ...] = ()
    """Ports that stay as the program binds them, and open to everybody on the host: a debugger's."""
    fail_open: bool = False

    def member(self) -> Member:
        """The entry for its cgroup."""
        flags = MemberFlag.FAIL_OPEN if self.fail_open else MemberFlag.NONE
        return Member(
            Role.WORKLOAD, flags, self.app, self.http_port, self.auto_port, self.tcp_port, self.dns_port
        )


@dataclass(frozen=True, slots=True)
class Adoption:
    """What :meth:`HostCapture.open` found. ``lost`` names maps whose shape changed: fill them anew."""

    adopted: bool
    upgraded: bool
    lost: tuple[str, ...] = ()


class HostCapture:
    """A mesh's capture on this host. Make it with :meth:`open`."""

    def __init__(self, root: Path, pins: Path, maps: dict[str, Map], adoption: Adoption) -> None:
        self._root = root
        self._pins = pins
        self._maps = maps
        self.adoption = adoption

    @classmethod
    def open(cls, index: int, *, cgroup2: Path | None = None, pins: Path = bpffs.BPFFS) -> Self:
        """Load and attach the programs of mesh ``index`` (0..15), or take over those that are pinned.

        ``cgroup2`` is where cgroup v2 is mounted (None: look). Raises
        :class:`~retia.node.errors.CaptureUnavailable` where the host lacks something, other
        :class:`~retia.node.errors.CaptureError` where the kernel refuses; a first open that fails leaves
        nothing.
        """
        name = cgroups.scope_name(check_index(index))
        root = (cgroup2 or cgroups.find_cgroup2()) / name
        fresh = not root.exists()
        bundle = loader.read_bundle()
        bpffs.mount(pins)
        try:
            for place in Place:
                cgroups.make(_folder(root, place))
            cgroups.make(root / "ag")
            maps, adoption = _install(bundle, root, pins / name)
        except BaseException:
            if fresh:
                _demolish(root, pins / name)
            raise
        capture = cls(root, pins / name, maps, adoption)
        capture._register(root / "ag", Member(Role.AGENT))
        capture.refresh_host()
        return capture

    @property
    def root(self) -> CgroupPath:
        """The mesh's branch of the cgroup tree."""
        return CgroupPath(self._root)

    @property
    def agent_cgroup(self) -> CgroupPath:
        """For the agent: sockets made by processes in it may reach every instance, and its DNS answers only
        those who should ask."""
        return CgroupPath(self._root / "ag")

    def join(self, pid: int | None = None) -> None:
        """Move the agent (None: this process) into :attr:`agent_cgroup`.

        Without it health checks of instances time out, and strangers may ask the instances' DNS. Sockets
        opened before keep their old cgroup.
        """
        self.move(os.getpid() if pid is None else pid, self.agent_cgroup)

    def instances(self) -> dict[str, CgroupPath]:
        """Instances that have a cgroup, those of a former agent included."""
        return self._children(self._root / "wl")

    def proxies(self) -> dict[str, CgroupPath]:
        """Proxies that have a cgroup, those of a former agent included."""
        return self._children(self._root / "px")

    def app_address(self, instance: str) -> str | None:
        """The app address that an instance has been added with; None: it is not here."""
        member = self._member(self._instance_folder(instance))
        return member.address if member else None

    def add_instance(self, instance: InstanceAddresses) -> CgroupPath:
        """Make an instance's cgroup and capture what will run in it; again changes what differs.

        A proxy of the same name may from now on reach it.
        """
        folder = self._instance_folder(instance.id)
        before = self._member(folder)
        if before is not None and before.address != instance.app:
            self._forget_address(before.address)
        cgroups.make(folder)
        self._set_open_ports(instance)
        self._maps["addresses"].set(layout.pack_address(instance.app), layout.PRESENT)
        self._register(folder, instance.member())
        proxy = self._proxy_folder(instance.id)
        if proxy.exists():
            self._grant(proxy, instance.app)
        self.refresh_host()
        return CgroupPath(folder)

    def remove_instance(self, instance: str, *, kill: bool = False) -> None:
        """Remove an instance's cgroup and all that is known of it; nothing if there is none.

        :class:`~retia.node.errors.InstanceBusy` while processes live there (and nothing is changed), unless
        ``kill``: then they are killed, which is waited for at most 5 s.
        """
        folder = self._instance_folder(instance)
        if not folder.exists():
            return
        key, member = _key(folder), self._member(folder)
        cgroups.remove(folder, kill=kill)
        self._maps["members"].delete(key)
        if member is not None:
            self._forget_address(member.address)

    def proxy_cgroup(self, name: str, serves: Iterable[str] | None = None) -> CgroupPath:
        """Make the cgroup of a proxy, which learns original destinations and may reach the instances it
        serves.

        ``serves`` names instances that have been added; None: the one of the same name, now or later. Again
        adds.
        """
        folder = self._proxy_folder(name)
        cgroups.make(folder)
        self._register(folder, Member(Role.PROXY))
        for instance in (name,) if serves is None else serves:
            address = self.app_address(instance)
            if address is not None:
                self._grant(folder, address)
            elif serves is not None:
                raise CaptureError(
                    f"proxy {name} cannot serve instance {instance}: there is no such instance"
                )
        return CgroupPath(folder)

    def remove_proxy(self, name: str, *, kill: bool = False) -> None:
        """Remove a proxy's cgroup and its grants; as :meth:`remove_instance`."""
        folder = self._proxy_folder(name)
        if not folder.exists():
            return
        key = _key(folder)
        cgroups.remove(folder, kill=kill)
        self._maps["members"].delete(key)
        proxy = layout.CGROUP_ID.unpack(key)[0]
        self._delete_grants(lambda who, _: who == proxy)

    def move(self, pid: int, cgroup: CgroupPath) -> None:
        """Move a process into a cgroup; ProcessLookupError if it is gone.

        Sockets that it has already are not captured: move first, then exec the program.
        """
        cgroups.move(pid, cgroup)

    def set_destination(
        self, address: str, port: int, protocol: Protocol, fallback: tuple[str, int] | None = None
    ) -> None:
        """Capture connections to ``address:port``, for the listener that ``protocol`` wants.

        ``fallback`` is where an instance that fails open goes while its proxy is away (None: the address
        itself, which is of no use for a virtual one).
        """
        key = layout.pack_address_port(address, port)
        self._maps["destinations"].set(key, layout.pack_destination(protocol, fallback))

    def remove_destination(self, address: str, port: int) -> bool:
        """Leave connections to ``address:port`` alone from now on; whether they were captured."""
        return self._maps["destinations"].delete(layout.pack_address_port(address, port))

    def replace_destinations(
        self,
        destinations: Mapping[tuple[str, int], Protocol],
        fallbacks: Mapping[tuple[str, int], tuple[str, int]] | None = None,
    ) -> int:
        """Capture exactly ``destinations``, with those ``fallbacks`` (see :meth:`set_destination`); the
        number of entries that changed. What stays is never away meanwhile."""
        known = fallbacks or {}
        wanted = {
            layout.pack_address_port(*where): layout.pack_destination(p, known.get(where))
            for where, p in destinations.items()
        }
        table = self._maps["destinations"]
        present = table.items()
        changed = [(key, value) for key, value in wanted.items() if present.get(key) != value]
        gone = [key for key in present if key not in wanted]
        table.set_many(changed)
        table.delete_many(gone)
        return len(changed) + len(gone)

    def destinations(self) -> dict[tuple[str, int], layout.Listener]:
        """What is captured now."""
        entries = self._maps["destinations"].items()
        return {
            layout.unpack_address_port(key): layout.Listener(layout.DESTINATION.unpack(value)[2])
            for key, value in entries.items()
        }

    def set_fail_open(self, instance: str, value: bool) -> None:
        """Whether connections of an instance pass its proxy by while nothing listens there; CaptureError if
        there is no such instance. Listeners stay closed to strangers all the same."""
        folder = self._instance_folder(instance)
        member = self._member(folder)
        if member is None:
            raise CaptureError(f"there is no captured instance {instance}")
        flags = member.flags | MemberFlag.FAIL_OPEN if value else member.flags & ~MemberFlag.FAIL_OPEN
        ports = (member.http_port, member.auto_port, member.tcp_port, member.dns_port)
        self._register(folder, Member(member.role, flags, member.address, *ports))

    def set_bypass(self, instance: str, value: bool, fail_open: bool = False) -> None:
        """Whether new connections of an instance pass its proxy by although it listens; CaptureError if there
        is no such instance. ``fail_open`` is what holds once it is over."""
        folder = self._instance_folder(instance)
        member = self._member(folder)
        if member is None:
            raise CaptureError(f"there is no captured instance {instance}")
        flags = MemberFlag.FAIL_OPEN if value or fail_open else MemberFlag.NONE
        ports = (OUTBOUND_HTTP_PORT, OUTBOUND_AUTO_PORT, OUTBOUND_TCP_PORT)
        if value:
            # Fail open towards a port on which nobody ever listens at the instance's address.
            ports = (NO_LISTENER, NO_LISTENER, NO_LISTENER)
        self._register(folder, Member(member.role, flags, member.address, *ports, member.dns_port))

    def refresh_host(self) -> None:
        """Read the host's own addresses and socket defaults anew; done with every :meth:`add_instance`."""
        table = self._maps["host_addresses"]
        wanted = {layout.pack_address(address) for address in local_addresses(_FIB)}
        present = table.items().keys()
        for address in wanted - present:
            table.set(address, layout.PRESENT)
        for address in present - wanted:
            table.delete(address)
        v6only, _, digest = layout.SETTINGS.unpack(self._maps["settings"].get(_FIRST) or bytes(40))
        default = int(_V6ONLY.read_text()) if _V6ONLY.exists() else 0
        if default != v6only:
            self._maps["settings"].set(_FIRST, layout.SETTINGS.pack(default, 0, digest))

    def close(self, *, teardown: bool = False) -> None:
        """Let go of the descriptors; capture goes on, for the next :meth:`open`.

        With ``teardown`` capture ends: every cgroup, pin and mount of this mesh goes. Processes that still
        live there, this one included, are moved to the parent cgroup and are captured no more.
        """
        for found in self._maps.values():
            found.close()
        self._maps.clear()
        if teardown:
            _demolish(self._root, self._pins)

    def _children(self, folder: Path) -> dict[str, CgroupPath]:
        if not folder.exists():
            return {}
        found = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        return {cgroups.id_of(entry.name): CgroupPath(entry) for entry in found}

    def _instance_folder(self, instance: str) -> Path:
        return self._root / "wl" / cgroups.folder_name(instance)

    def _proxy_folder(self, proxy: str) -> Path:
        return self._root / "px" / cgroups.folder_name(proxy)

    def _member(self, folder: Path) -> Member | None:
        if not folder.exists():
            return None
        value = self._maps["members"].get(_key(folder))
        return Member.unpack(value) if value is not None else None

    def _register(self, folder: Path, member: Member) -> None:
        self._maps["members"].set(_key(folder), member.pack())

    def _grant(self, proxy: Path, address: str) -> None:
        self._maps["grants"].set(layout.pack_grant(cgroups.cgroup_id(proxy), address), layout.PRESENT)

    def _delete_grants(self, matches: _GrantTest) -> None:
        grants = self._maps["grants"]
        for key in grants.items():
            if matches(*layout.unpack_grant(key)):
                grants.delete(key)

    def _set_open_ports(self, instance: InstanceAddresses) -> None:
        table = self._maps["open_ports"]
        wanted = {layout.pack_address_port(instance.app, port) for port in instance.open_ports}
        for key in table.items():
            if layout.unpack_address_port(key)[0] == instance.app and key not in wanted:
                table.delete(key)
        for key in wanted:
            table.set(key, layout.PRESENT)

    def _forget_address(self, address: str) -> None:
        self._maps["addresses"].delete(layout.pack_address(address))
        self._delete_grants(lambda _, where: where == address)
        table = self._maps["open_ports"]
        for key in table.items():
            if layout.unpack_address_port(key)[0] == address:
                table.delete(key)


def local_addresses(fib: Path = _FIB) -> frozenset[str]:
    """The host's IPv4 addresses outside 127.0.0.0/8, from the kernel's routing table."""
    if not fib.exists():
        return frozenset()
    found: set[str] = set()
    address = ""
    for line in fib.read_text().splitlines():
        words = line.split()
        if words[:1] == ["|--"] and len(words) > 1:
            address = words[1]
        elif "host" in words and "LOCAL" in words and "/32" in words and not address.startswith("127."):
            found.add(address)
    return frozenset(found)


def _folder(root: Path, place: Place) -> Path:
    return {Place.ROOT: root, Place.WORKLOADS: root / "wl", Place.PROXIES: root / "px"}[place]


def _key(cgroup: Path) -> bytes:
    return layout.CGROUP_ID.pack(cgroups.cgroup_id(cgroup))


def _install(bundle: Bundle, root: Path, pins: Path) -> tuple[dict[str, Map], Adoption]:
    """Bring maps, programs and links to what ``bundle`` wants, keeping what is pinned."""
    (pins / "maps").mkdir(parents=True, exist_ok=True, mode=0o700)
    (pins / "links").mkdir(exist_ok=True, mode=0o700)
    pinned = {d.name: found for d in bundle.maps if (found := Map.pinned(pins / "maps" / d.name)) is not None}
    maps = loader.create_maps(bundle, pinned)
    lost = tuple(
        name for name in pinned if pinned[name] is not maps[name] and not _copy(pinned[name], maps[name])
    )
    same_maps = all(maps[name] is pinned.get(name) for name in maps)
    if same_maps and _digest(maps["settings"]) == bundle.digest and _links_stand(bundle, root, pins):
        return maps, Adoption(adopted=True, upgraded=False)
    with contextlib.ExitStack() as stack:
        programs = loader.load_programs(bundle, maps)
        for program in programs.values():
            stack.enter_context(program)
        for name, found in maps.items():
            if found is not pinned.get(name):
                _repin(found, pins / "maps" / name)
        for section, program in programs.items():
            _attach(section, program, root, pins / "links")
    _drop_unknown(bundle, pins)
    _write_digest(maps["settings"], bundle.digest)
    return maps, Adoption(adopted=bool(pinned), upgraded=bool(pinned), lost=lost)


def _copy(old: Map, new: Map) -> bool:
    """Take the entries of a former build's map over; False where key or value have another size."""
    same = (old.shape.type, old.shape.key_size, old.shape.value_size)
    if same != (new.shape.type, new.shape.key_size, new.shape.value_size):
        return False
    if old.shape.type != bpf.MAP_TYPE_SK_STORAGE:  # a socket's state goes with its socket
        new.set_many(list(old.items().items())[: new.shape.max_entries])
    return True


def _digest(settings: Map) -> bytes:
    digest: bytes = layout.SETTINGS.unpack(settings.get(_FIRST) or bytes(layout.SETTINGS.size))[2]
    return digest


def _write_digest(settings: Map, digest: bytes) -> None:
    v6only, _, _ = layout.SETTINGS.unpack(settings.get(_FIRST) or bytes(layout.SETTINGS.size))
    settings.set(_FIRST, layout.SETTINGS.pack(v6only, 0, digest))


def _pin_name(section: str) -> str:
    return section.replace("/", "_")


def _links_stand(bundle: Bundle, root: Path, pins: Path) -> bool:
    """Whether every program's link is pinned and still holds on to our cgroups."""
    for program in bundle.programs:
        link = bpf.open_pin(pins / "links" / _pin_name(program.section))
        if link is None:
            return False
        with link:
            wanted = cgroups.cgroup_id(_folder(root, loader.kind_of(program).place))
            if bpf.link_cgroup(link) != wanted:
                return False
    return True


def _attach(section: str, program: Handle, root: Path, folder: Path) -> None:
    """Make the link of ``section`` run ``program``: by replacement if there is one, anew otherwise."""
    kind = loader.KINDS[section]
    cgroup = _folder(root, kind.place)
    path = folder / _pin_name(section)
    old = bpf.open_pin(path)
    if old is not None:
        with old:
            if bpf.link_cgroup(old) == cgroups.cgroup_id(cgroup):
                bpf.update_link(old, program, section)
                return
        path.unlink()
    with bpf.create_link(program, cgroup, kind.attach_type, section) as link:
        bpf.pin(link.fileno(), path)


def _repin(found: Map, path: Path) -> None:
    path.unlink(missing_ok=True)
    found.pin(path)


def _drop_unknown(bundle: Bundle, pins: Path) -> None:
    """Unpin what a former build had and this one has not."""
    known = {_pin_name(program.section) for program in bundle.programs}
    maps = {definition.name for definition in bundle.maps}
    for folder, names in ((pins / "links", known), (pins / "maps", maps)):
        for entry in folder.iterdir():
            if entry.name not in names:
                entry.unlink()


def _demolish(root: Path, pins: Path) -> None:
    """Take away pins, cgroups and our own mount; each is tried, the first error is raised at the end."""
    with contextlib.ExitStack() as stack:
        stack.callback(bpffs.unmount_own, pins.parent)
        stack.callback(_remove_pins, pins)
        stack.callback(_remove_branch, root)


def _remove_branch(root: Path) -> None:
    if root.exists():
        cgroups.evacuate(root, root.parent)
        cgroups.remove(root)


def _remove_pins(pins: Path) -> None:
    for folder, _, files in os.walk(pins, topdown=False):
        for name in files:
            (Path(folder) / name).unlink(missing_ok=True)
        Path(folder).rmdir()
