"""The quick places for peers and original destinations: freed when done with, and dispensable when taken."""

from __future__ import annotations

import struct

import pytest

from retia.model.mesh import Protocol
from retia.node.bpf import Map
from retia.node.capture import HostCapture
from tests.integration.node.conftest import INDEX, Stage, Workload

pytestmark = pytest.mark.privileged

VIP = "240.240.7.9"
READY = 2

CALLS = """
import socket
for _ in range(200):
    s = socket.socket(); s.settimeout(3)
    try: s.connect(("240.240.7.9", 80))
    except ConnectionRefusedError: s.close(); continue
    assert s.getpeername() == ("240.240.7.9", 80)
    s.send(b"x"); print(s.recv(99).decode()); s.close()
"""


def maps(capture: HostCapture) -> dict[str, Map]:
    return capture._maps


def held(table: Map) -> int:
    """Entries whose first word is not 0 (for slots: whose destination was not asked for)."""
    words = [struct.unpack_from("=Q", value)[0] for value in table.items().values()]
    if table.name == "slots":
        return sum(word & 3 == READY for word in words)
    return sum(word != 0 for word in words)


@pytest.fixture
def captured(stage: Stage) -> Workload:
    workload = stage.workload(1)
    stage.capture.set_destination(VIP, 80, Protocol.HTTP)
    return workload


def test_places_are_freed_when_sockets_close(stage: Stage, captured: Workload) -> None:
    captured.start_proxy()
    answers = captured.inside.python(CALLS).splitlines()
    assert answers == [f"15001 {VIP}:80 {captured.app}"] * 200
    stage.capture.close()
    stage.capture = HostCapture.open(INDEX)
    assert held(maps(stage.capture)["peers"]) == 0
    assert held(maps(stage.capture)["slots"]) == 0


def test_places_are_freed_when_connections_are_refused(stage: Stage, captured: Workload) -> None:
    assert captured.inside.python(CALLS) == ""
    assert held(maps(stage.capture)["peers"]) == 0
    assert held(maps(stage.capture)["slots"]) == 0


@pytest.mark.parametrize("name", ["peers", "slots"])
def test_taken_places_are_not_needed(stage: Stage, captured: Workload, name: str) -> None:
    """Every place is another's: the slower tables serve, and nobody else's place is touched."""
    captured.start_proxy()
    table = maps(stage.capture)[name]
    # A cookie that no socket has; a slot that waits for a proxy to ask.
    foreign = struct.pack("=Q", (1 << 63) + READY).ljust(table.shape.value_size, b"\7")
    everything = {struct.pack("=I", i): foreign for i in range(table.shape.max_entries)}
    table.set_many(list(everything.items()))

    answers = captured.inside.python(CALLS).splitlines()
    assert answers == [f"15001 {VIP}:80 {captured.app}"] * 200
    assert table.items() == everything
