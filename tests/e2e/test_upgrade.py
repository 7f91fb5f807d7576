"""What an operator does around an upgrade: back up, restore, go back, bring an Envoy along."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from retia.cli.tour.processes import retia, tail, wait_until
from retia.cli.tour.stage import free_port
from retia.sources.sqlite import SCHEMA_VERSION
from tests.support.hosts import Home
from tests.support.validating import envoy_binary

pytestmark = pytest.mark.timeout(120)

OBJECTS = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: weather}
spec:
  hosts: [weather.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
  location: MESH_EXTERNAL
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: weather}
spec:
  hosts: [weather.example.com]
  http: [{timeout: 3s, route: [{destination: {host: weather.example.com}}]}]
"""


@pytest.fixture
def home() -> Iterator[Callable[[], Home]]:
    """Makes state folders; what runs for them is ended after the test, by itself."""
    homes: list[Home] = []

    def make(name: str = "one") -> Home:
        homes.append(Home(name))
        return homes[-1]

    try:
        yield make
    finally:
        for each in reversed(homes):
            each.close()
    assert [left for each in homes for left in each.left] == []


@pytest.fixture(scope="module")
def ports() -> tuple[str, ...]:
    """Options that keep a controller out of other meshes' way."""
    return "--port", str(free_port()), "--metrics-port", str(free_port())


def fails(process: subprocess.Popen[str], log: Path) -> tuple[int, str]:
    """How a process ended that must end by itself: status, and its one line."""
    status = process.wait(30)
    lines = [line for line in log.read_text().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, lines
    return status, lines[0]


# -- backup


def test_a_backup_of_a_running_mesh_lives_on_in_a_fresh_home(
    home: Callable[..., Home], ports: tuple[str, ...], tmp_path: Path
) -> None:
    old, new, host = home(), home(), home("host")
    old.controller(*ports)
    token = old.token()
    host.agent("--join", token, "--controller", f"127.0.0.1:{ports[1]}", "--capture", "explicit")
    (tmp_path / "objects.yaml").write_text(OBJECTS)
    assert old.command("apply", "-f", str(tmp_path / "objects.yaml")).returncode == 0
    archive = tmp_path / "mesh.tar.gz"
    saved = old.command("backup", str(archive))
    assert (saved.returncode, saved.stdout) == (0, f"{archive}\n"), saved.stderr
    before = state_of(old)
    refused = old.command("restore", str(archive), "--force")
    assert refused.returncode == 1
    assert (
        refused.stderr == "retia: a controller is running for this RETIA_HOME; stop it first ('retia down')\n"
    )
    assert old.stop("controller") == 0
    assert wait_until(lambda: not host.connected(), 10)

    restored = new.command("restore", str(archive))
    assert restored.returncode == 0, restored.stderr
    new.controller(*ports)
    assert state_of(new) == before
    assert len(before["objects"]) == 2
    assert before["fingerprint"]
    # The host's certificate is from the same authority: it comes back by itself.
    assert wait_until(host.connected, 20), tail(host.log("agent"))
    again = new.command("restore", str(archive))
    assert again.returncode == 1


def state_of(controller: Home) -> dict[str, Any]:
    with controller.client() as client:
        return {
            "objects": [o.manifest for o in client.list_objects()],
            "fingerprint": [c.fingerprint for c in client.status().authority if c.fingerprint],
            "addresses": {s.host: s.vip for s in client.list_services()},
        }


# -- the store's schema


def test_a_store_of_before_the_first_schema_is_brought_forward(
    home: Callable[..., Home], ports: tuple[str, ...]
) -> None:
    mesh = home()
    store = mesh.home / "controller" / "store.sqlite"
    store.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(store)) as database:
        database.execute("PRAGMA user_version = 0")
        database.commit()
    mesh.controller(*ports)
    with mesh.client() as client:
        assert client.status().ready
    mesh.stop("controller")
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_store_of_a_newer_retia_is_refused_and_untouched(
    home: Callable[..., Home], ports: tuple[str, ...], tmp_path: Path
) -> None:
    mesh = home()
    mesh.controller(*ports)
    archive = tmp_path / "before.tar.gz"
    assert mesh.command("backup", str(archive)).returncode == 0
    mesh.stop("controller")
    store = mesh.home / "controller" / "store.sqlite"
    with closing(sqlite3.connect(store)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        database.commit()
    before = store.read_bytes()
    status, said = fails(mesh.start("newer", retia("controller", *ports)), mesh.log("newer"))
    assert status == 1
    assert f"schema version {SCHEMA_VERSION + 1}, written by a newer Retia" in said
    assert store.read_bytes() == before
    # The way back that the message names.
    restored = mesh.command("restore", str(archive), "--force")
    assert restored.returncode == 0, restored.stderr
    mesh.controller(*ports)


# -- Envoy


def script(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "missing", "there is no executable file"),
        (
            lambda folder: script(folder / "envoy", "GNU bash, version 5.2"),
            "is no Envoy: it did not tell its version",
        ),
        (lambda folder: folder, "there is no executable file"),
    ],
    ids=["missing", "something else", "a folder"],
)
def test_what_is_no_envoy_is_refused_in_one_line(
    home: Callable[..., Home], tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    given = make(tmp_path)
    mesh = home()
    process = mesh.start("agent", retia("agent", "--envoy", str(given), "--capture", "explicit"))
    status, line = fails(process, mesh.log("agent"))
    assert status == 78
    assert line.startswith("retia agent: ")
    assert str(given) in line
    assert said in line


def test_the_users_own_envoy_is_run_and_its_version_said(
    home: Callable[..., Home], ports: tuple[str, ...], tmp_path: Path
) -> None:
    own = tmp_path / "own-envoy"
    shutil.copy2(envoy_binary(), own)
    mesh = home()
    mesh.controller(*ports)
    mesh.agent(
        "--join", mesh.token(), "--controller", f"127.0.0.1:{ports[1]}", "--capture", "explicit",
        "--envoy", str(own),
    )  # fmt: skip
    info = mesh.info()
    assert (info.envoy_path, info.envoy_version[:5]) == (str(own), "1.40.")
    client = mesh.command("run", "--", "true")
    assert client.returncode == 0, client.stderr
    assert f"{own}" in mesh.command("check").stdout


def test_another_version_of_envoy_is_used_with_a_warning(
    home: Callable[..., Home], ports: tuple[str, ...], tmp_path: Path
) -> None:
    own = script(
        tmp_path / "own-envoy", f"{tmp_path}/own-envoy  version: 0123abcd/1.37.2/Clean/RELEASE/BoringSSL"
    )
    mesh = home()
    mesh.controller(*ports)
    mesh.agent(
        "--join", mesh.token(), "--controller", f"127.0.0.1:{ports[1]}", "--capture", "explicit",
        "--envoy", str(own),
    )  # fmt: skip
    assert f"{own} is Envoy 1.37.2; this Retia was tested with 1.40" in mesh.log("agent").read_text()
    assert mesh.info().envoy_version == "1.37.2"
    check = mesh.command("check")
    assert f"! Envoy: 1.37.2 at {own}" in check.stdout
    assert "tested with 1.40" in check.stdout
