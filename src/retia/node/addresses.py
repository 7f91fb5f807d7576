"""Which addresses and ports a mesh and its workloads have on a host: pure formulas.

Up to 16 meshes live on one host, told apart by their *index* k: TCP ports of the mesh's own processes are
shifted by 100 k, and each mesh has two loopback ranges of 65,534 addresses: published (127.(64+2k).x.y,
where the proxies listen for callers) and app (127.(65+2k).x.y, where the applications really listen and
where their proxies' outbound listeners are). Workload n of a host, counted from 1, has the n-th address of
each.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_INDEX = 15
MAX_WORKLOAD = 65534

OUTBOUND_HTTP_PORT = 15001
OUTBOUND_AUTO_PORT = 15002
OUTBOUND_TCP_PORT = 15003
EXPLICIT_PORT = 15001
DNS_PORT = 15053
"""Ports on a workload's own addresses: the same in every mesh, since the addresses differ."""

_PORT_STEP = 100


@dataclass(frozen=True, slots=True)
class MeshPorts:
    """The TCP ports of one mesh's own processes on a host."""

    control: int
    """xDS and identity, mTLS; at the address that the controller advertises."""
    metrics: int
    """The controller's metrics and health, on 127.0.0.1."""
    gateway: int
    """The host gateway: mTLS from other hosts."""


@dataclass(frozen=True, slots=True)
class WorkloadAddresses:
    """The two loopback addresses of one workload."""

    published: str
    app: str


def check_index(index: int) -> int:
    """``index`` if it is a mesh index (0..15), ValueError otherwise."""
    if not 0 <= index <= MAX_INDEX:
        raise ValueError(f"mesh index is {index}; it must be 0 to {MAX_INDEX}")
    return index


def mesh_ports(index: int) -> MeshPorts:
    """The ports of mesh ``index``."""
    shift = _PORT_STEP * check_index(index)
    return MeshPorts(control=15012 + shift, metrics=15014 + shift, gateway=15443 + shift)


def workload_addresses(index: int, number: int) -> WorkloadAddresses:
    """The addresses of workload ``number`` (1..65534) in mesh ``index``; ValueError outside."""
    check_index(index)
    if not 1 <= number <= MAX_WORKLOAD:
        raise ValueError(f"workload number is {number}; it must be 1 to {MAX_WORKLOAD}")
    tail = f"{number >> 8}.{number & 255}"
    return WorkloadAddresses(published=f"127.{64 + 2 * index}.{tail}", app=f"127.{65 + 2 * index}.{tail}")
