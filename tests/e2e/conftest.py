"""Whole meshes, started as a user starts them, for tests that send real requests through real Envoys."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retia.cli.tour import shop
from retia.cli.tour.client import Visitor
from retia.cli.tour.stage import Stage

CLONE_NEWUSER = 0x10000000
"""linux/sched.h."""


@pytest.fixture(scope="module")
def running_shop() -> Iterator[Stage]:
    """The sample shop under eBPF capture, one for all tests of a file."""
    stage = Stage(shop.mesh_file(), capture="ebpf")
    with stage:
        yield stage
    assert stage.left == []


@pytest.fixture(scope="module")
def shop_visitor(running_shop: Stage) -> Visitor:
    return running_shop.visitor()


@pytest.fixture
def shop_stage(running_shop: Stage) -> Stage:
    """The shop with the routes and rules that it starts with."""
    for kind in ("VirtualService", "DestinationRule", "ServiceEntry"):
        for found in running_shop.client.list_objects(kind):
            if found.name not in ("reviews", "ratings", "payments"):
                running_shop.client.delete_object(kind, found.namespace, found.name)
    running_shop.apply(shop.config("versions"), shop.config("routes"))
    return running_shop


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Starts a mesh from the text of a mesh file; it is ended, and must leave nothing, after the test."""
    stages: list[Stage] = []

    def start(text: str, **files: str) -> Stage:
        (tmp_path / "retia.yaml").write_text(text)
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        stage = Stage(tmp_path / "retia.yaml", capture="ebpf")
        stages.append(stage)
        stage.start()
        return stage

    try:
        yield start
    finally:
        for stage in stages:
            stage.close()
    assert [left for stage in stages for left in stage.left] == []


@pytest.fixture
def as_ordinary_user() -> Callable[[], None]:
    """What a child process calls to become an ordinary user; does nothing where the tests are one already.

    Where other users may not read this checkout or its Python, the child keeps access to the files and
    loses everything else: it enters a user namespace in which nobody is mapped, and holds no capability.
    """
    readable = all(_open_to_all(Path(p)) for p in (sys.executable, shop.__file__, shop.mesh_file()))
    nobody = 65534
    libc = ctypes.CDLL(None, use_errno=True)

    def drop() -> None:
        if os.getuid() != 0:
            return
        if readable:
            os.setgroups([])
            os.setgid(nobody)
            os.setuid(nobody)
        elif libc.unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")

    return drop


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)
