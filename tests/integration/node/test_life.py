"""Capture outlives the agent, is upgraded in place, and leaves nothing when it is taken away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import retia
from retia.model.mesh import Protocol
from retia.node import bpffs, capture, loader
from retia.node.bpf import Map
from retia.node.capture import HostCapture
from retia.node.cgroups import find_cgroup2, mounted, scope_name
from retia.node.errors import BpfError
from retia.node.features import missing, probe
from tests.integration.node.conftest import INDEX, Stage, Workload

pytestmark = pytest.mark.privileged

VIP = "240.240.7.9"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(retia.__file__).parents[1])}


def traces(index: int) -> list[str]:
    """What a mesh has left on the host."""
    name = scope_name(index)
    found = [str(find_cgroup2() / name), str(bpffs.BPFFS / name)]
    return [path for path in found if Path(path).exists()]


@pytest.fixture
def captured(stage: Stage) -> Workload:
    workload = stage.workload(1)
    workload.start_proxy()
    stage.capture.set_destination(VIP, 80, Protocol.HTTP)
    return workload


def expected(workload: Workload) -> str:
    return f"15001 {VIP}:80 {workload.app}"


class TestAgentAway:
    def test_capture_goes_on_and_is_taken_over(self, stage: Stage, captured: Workload) -> None:
        stage.capture.close()
        assert captured.inside.ask(VIP, 80) == expected(captured)

        stage.capture = HostCapture.open(INDEX)
        assert stage.capture.adoption == capture.Adoption(adopted=True, upgraded=False)
        assert list(stage.capture.instances()) == [captured.id]
        assert list(stage.capture.proxies()) == [captured.id]
        assert stage.capture.app_address(captured.id) == captured.app
        assert (VIP, 80) in stage.capture.destinations()
        assert captured.inside.ask(VIP, 80) == expected(captured)

    def test_capture_survives_a_loader_that_was_killed(self, stage: Stage) -> None:
        stage.capture.close(teardown=True)
        code = f"""
import os, signal
from retia.node.capture import HostCapture, InstanceAddresses
capture = HostCapture.open({INDEX})
capture.add_instance(InstanceAddresses("test/w-1", "127.94.0.1", "127.95.0.1"))
os.kill(os.getpid(), signal.SIGKILL)
"""
        killed = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=30, check=False)
        assert killed.returncode == -9
        stage.capture = HostCapture.open(INDEX)
        assert stage.capture.app_address("test/w-1") == "127.95.0.1"
        assert stage.capture.adoption.adopted

    def test_instance_added_before_goes_on_after(self, stage: Stage, captured: Workload) -> None:
        captured.serve(22080, "one")
        stage.capture.close()
        stage.capture = HostCapture.open(INDEX)
        again = stage.workload(1)
        assert again.proxy.ask(again.app, 22080) == "one"
        assert again.inside.ask("127.0.0.1", 22080) == "one"


class TestUpgrade:
    def test_new_programs_replace_the_old_without_a_gap(
        self, stage: Stage, captured: Workload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = """
import socket, time
end = time.monotonic() + 1.0; n = 0
while time.monotonic() < end:
    s = socket.socket(); s.settimeout(3); s.connect(("240.240.7.9", 80)); s.send(b"x")
    assert s.recv(99).startswith(b"15001 240.240.7.9:80"); s.close(); n += 1
print(n)
"""
        answers: list[str] = []
        caller = threading.Thread(target=lambda: answers.append(captured.inside.python(code)))
        caller.start()
        bundle = loader.read_bundle()
        for build in range(5):
            monkeypatch.setattr(
                loader, "read_bundle", lambda n=build: replace(bundle, digest=bytes([n]) * 32)
            )
            stage.capture.close()
            stage.capture = HostCapture.open(INDEX)
            assert stage.capture.adoption == capture.Adoption(adopted=True, upgraded=True)
        caller.join(timeout=30)
        assert answers
        assert int(answers[0]) > 0

    def test_a_larger_map_takes_the_entries_over(
        self, stage: Stage, captured: Workload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = loader.read_bundle()
        grown = tuple(
            replace(m, max_entries=m.max_entries * 2) if m.name in ("members", "destinations") else m
            for m in bundle.maps
        )
        monkeypatch.setattr(loader, "read_bundle", lambda: replace(bundle, maps=grown))
        stage.capture.close()
        stage.capture = HostCapture.open(INDEX)
        assert stage.capture.adoption == capture.Adoption(adopted=True, upgraded=True)
        assert captured.inside.ask(VIP, 80) == expected(captured)

    def test_a_map_of_another_shape_is_said_to_be_lost(
        self, stage: Stage, captured: Workload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = loader.read_bundle()
        path = bpffs.BPFFS / scope_name(INDEX) / "maps" / "open_ports"
        definition = next(m for m in bundle.maps if m.name == "open_ports")
        path.unlink()
        other = Map.create("open_ports", replace(loader.shape_of(definition), value_size=8))
        other.pin(path)
        stage.capture.close()
        stage.capture = HostCapture.open(INDEX)
        assert stage.capture.adoption.lost == ("open_ports",)
        assert captured.inside.ask(VIP, 80) == expected(captured)

    def test_a_lost_pin_is_made_again(self, stage: Stage, captured: Workload) -> None:
        links = bpffs.BPFFS / scope_name(INDEX) / "links"
        (links / "cgroup_connect4").unlink()
        (links / "of-a-former-build").mkdir()
        (links / "of-a-former-build").rmdir()
        assert captured.inside.ask(VIP, 80) != expected(captured)
        stage.capture.close()
        stage.capture = HostCapture.open(INDEX)
        assert captured.inside.ask(VIP, 80) == expected(captured)


class TestTeardown:
    def test_nothing_is_left(self, stage: Stage, captured: Workload) -> None:
        server = captured.serve(22080, "one")
        others = [path for path in bpffs.BPFFS.iterdir() if path.is_dir() and path.name != scope_name(INDEX)]
        stage.capture.close(teardown=True)

        assert traces(INDEX) == []
        assert server.poll() is None
        own = ("retia", bpffs.BPFFS)
        assert own not in mounted("bpf") or others
        stage.stop()
        stage.capture = HostCapture.open(INDEX)
        assert not stage.capture.adoption.adopted

    def test_twice_is_harmless(self, stage: Stage) -> None:
        stage.capture.close(teardown=True)
        stage.capture.close(teardown=True)
        assert traces(INDEX) == []

    def test_a_first_open_that_fails_leaves_nothing(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage.capture.close(teardown=True)

        def refuse(*_: object) -> None:
            raise BpfError("loading", 22)

        with monkeypatch.context() as patch:
            patch.setattr(loader, "load_programs", refuse)
            with pytest.raises(BpfError):
                HostCapture.open(INDEX)
        assert traces(INDEX) == []
        stage.capture = HostCapture.open(INDEX)


def test_probe_finds_everything_and_leaves_nothing() -> None:
    before = list(mounted("bpf"))
    found = probe()
    assert missing(found) is None, found
    assert list(mounted("bpf")) == before
    assert not list(find_cgroup2().glob("retia-probe-*"))


def test_probe_says_what_an_ordinary_user_lacks() -> None:
    code = """
import os
from retia.node import features
os.setgid(65534); os.setuid(65534)
found = features.probe()
print(found[0].name, found[0].ok, found[0].reason)
print(sum(f.ok for f in found))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    first, count = said.stdout.strip().splitlines()
    assert first == "rights False uid 65534 lacks CAP_BPF; run the agent as root"
    assert int(count) == 0


def test_another_network_namespace_has_names_of_its_own() -> None:
    code = "from retia.node.cgroups import scope_name; print(scope_name(3))"
    command = ["unshare", "-n", sys.executable, "-c", code]
    said = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=30, check=True)
    assert scope_name(3) == "retia-3"
    assert said.stdout.startswith("retia-3-")
