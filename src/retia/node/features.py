"""What this kernel and these rights allow, asked one by one.

Each feature is tried, not guessed from a version number: a two-instruction program is loaded and attached
to a scratch cgroup, a helper is called by a program that only the verifier sees. Nothing is left behind.
The last feature loads the package's own programs, without attaching them. :func:`require` turns the first
missing one into an error.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retia.node import bpffs, cgroups, loader
from retia.node.bpf import create_link, load_program
from retia.node.errors import CaptureError, CaptureUnavailable
from retia.node.loader import KINDS, Kind

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}
_SOCK_ADDR = Kind(18, 10, loader.Place.WORKLOADS)
_SKB = KINDS["cgroup_skb/ingress"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that capture wants of the host; ``reason`` says what is wrong, or how it was found."""

    name: str
    ok: bool
    reason: str


def probe(folder: Path = bpffs.BPFFS) -> list[Feature]:
    """All features, in the order in which they build on one another. Takes about 50 ms."""
    found = [_feature("rights", _check_rights), _feature("cgroup2", _check_cgroup2)]
    found.append(_feature("bpffs", partial(_check_bpffs, folder)))
    with _scratch_cgroup() as scratch:
        for section, kind in KINDS.items():
            found.append(_feature(f"attach {section}", partial(_check_attach, kind, section, scratch)))
    for name, kind, code in _HELPERS:
        found.append(_feature(f"helper {name}", partial(_check_helper, name, kind, code)))
    found.append(_feature("programs", _check_programs))
    return found


def missing(features: Iterable[Feature]) -> Feature | None:
    """The first feature that is not there; None: capture is possible."""
    return next((feature for feature in features if not feature.ok), None)


def require(features: Iterable[Feature]) -> None:
    """Raise :class:`CaptureUnavailable` for the first feature that is not there."""
    feature = missing(features)
    if feature is not None:
        raise CaptureUnavailable(feature.name, feature.reason)


def effective_capabilities(status: Path = Path("/proc/self/status")) -> int:
    """This process's effective capabilities as a set of bits."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _feature(name: str, check: Callable[[], str]) -> Feature:
    try:
        return Feature(name, True, check())
    except CaptureUnavailable as error:
        return Feature(name, False, error.reason)
    except CaptureError as error:
        return Feature(name, False, str(error))


def _check_rights() -> str:
    held = effective_capabilities()
    admin = held >> _CAPABILITIES["CAP_SYS_ADMIN"] & 1
    if not admin and not held >> _CAPABILITIES["CAP_BPF"] & 1:
        raise CaptureUnavailable("rights", f"uid {os.geteuid()} lacks CAP_BPF; run the agent as root")
    if not held >> _CAPABILITIES["CAP_NET_ADMIN"] & 1:
        raise CaptureUnavailable("rights", f"uid {os.geteuid()} lacks CAP_NET_ADMIN; run the agent as root")
    return "root" if os.geteuid() == 0 else f"uid {os.geteuid()} with CAP_BPF and CAP_NET_ADMIN"


def _check_cgroup2() -> str:
    folder = cgroups.find_cgroup2()
    if not os.access(folder, os.W_OK):
        raise CaptureUnavailable("cgroup2", f"{folder} is not writable; run the agent as root")
    return str(folder)


def _check_bpffs(folder: Path) -> str:
    if bpffs.is_mounted(folder):
        if not os.access(folder, os.W_OK):
            raise CaptureUnavailable("bpffs", f"{folder} is not writable; run the agent as root")
        return str(folder)
    if not folder.is_dir():
        raise CaptureUnavailable(
            "bpffs", f"{folder} is not a folder: is CONFIG_BPF_SYSCALL on, is /sys mounted?"
        )
    with tempfile.TemporaryDirectory(prefix="retia-probe-") as scratch:
        bpffs.mount(Path(scratch))
        bpffs.unmount_own(Path(scratch))
    return f"not mounted yet; the agent mounts it at {folder}"


@contextlib.contextmanager
def _scratch_cgroup() -> Iterator[Path | None]:
    try:
        folder = cgroups.find_cgroup2() / f"retia-probe-{os.getpid()}"
        cgroups.make(folder)
    except CaptureError:
        yield None
        return
    try:
        yield folder
    finally:
        with contextlib.suppress(CaptureError):
            cgroups.remove(folder)


def _check_attach(kind: Kind, section: str, scratch: Path | None) -> str:
    with load_program("retia_probe", kind.program_type, kind.attach_type, _RETURN_1) as program:
        if scratch is None:
            raise CaptureUnavailable(section, "no cgroup to attach to")
        create_link(program, scratch, kind.attach_type, section).close()
    return "attached to a scratch cgroup"


def _check_helper(name: str, kind: Kind, code: bytes) -> str:
    load_program(f"probe_{name}", kind.program_type, kind.attach_type, code).close()
    return "verified"


def _check_programs() -> str:
    bundle = loader.read_bundle()
    maps = loader.create_maps(bundle)
    programs = loader.load_programs(bundle, maps)
    return f"{len(programs)} programs and {len(maps)} maps load"


def _ops(*instructions: tuple[int, int, int, int, int]) -> bytes:
    """Instructions as (code, destination, source, offset, immediate)."""
    return b"".join(struct.pack("<BBhi", code, d | s << 4, off, imm) for code, d, s, off, imm in instructions)


def _call_helper(number: int) -> tuple[int, int, int, int, int]:
    return (0x85, 0, 0, 0, number)


def _put(register: int, value: int) -> tuple[int, int, int, int, int]:
    return (0xB7, register, 0, 0, value)


_EXIT = (0x95, 0, 0, 0, 0)
_RETURN_1 = _ops(_put(0, 1), _EXIT)
_SAVE_CONTEXT = (0xBF, 6, 1, 0, 0)
_ZERO_STACK = tuple((0x7A, 10, 0, -offset, 0) for offset in (8, 16, 24, 32, 40))
_STACK_TO_2 = ((0xBF, 2, 10, 0, 0), (0x07, 2, 0, 0, -40))
_BIND = _ops(*_ZERO_STACK, *_STACK_TO_2, _put(3, 16), _call_helper(64), _put(0, 1), _EXIT)
_ANCESTOR = _ops(_put(1, 1), _call_helper(123), _put(0, 1), _EXIT)
# sk = bpf_sk_lookup_tcp(...); if (sk) { bpf_sk_ancestor_cgroup_id(sk, 1); bpf_sk_release(sk); }
_LOOKUP = (*_ZERO_STACK, *_STACK_TO_2, _put(3, 12), _put(4, -1), _put(5, 0), _call_helper(84))
_RELEASE = ((0xBF, 1, 7, 0, 0), _call_helper(86))
_FIND_SOCKET = _ops(*_LOOKUP, (0x15, 0, 0, 3, 0), (0xBF, 7, 0, 0, 0), *_RELEASE, _put(0, 1), _EXIT)
_SOCKET_CGROUP = _ops(
    *_LOOKUP,
    (0x15, 0, 0, 6, 0),
    (0xBF, 7, 0, 0, 0),
    (0xBF, 1, 7, 0, 0),
    _put(2, 1),
    _call_helper(129),
    *_RELEASE,
    _put(0, 1),
    _EXIT,
)
_HELPERS = (
    ("bpf_bind", _SOCK_ADDR, _BIND),
    ("bpf_get_current_ancestor_cgroup_id", _SOCK_ADDR, _ANCESTOR),
    ("bpf_sk_lookup_tcp", _SOCK_ADDR, _FIND_SOCKET),
    ("bpf_sk_ancestor_cgroup_id", _SKB, _SOCKET_CGROUP),
)
