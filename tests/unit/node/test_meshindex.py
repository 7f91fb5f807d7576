from __future__ import annotations

import os
import socket

import pytest

from retia.node.meshindex import IndexTaken, MeshLock, lock_name

INDEX = 12


@pytest.fixture
def lock() -> MeshLock:
    return MeshLock.take(INDEX)


def test_a_taken_index_is_refused_and_freed_by_close(lock: MeshLock) -> None:
    with pytest.raises(IndexTaken, match="mesh index 12 is taken"):
        MeshLock.take(INDEX)
    lock.close()
    MeshLock.take(INDEX).close()


def test_any_free_index_will_do() -> None:
    first, second = MeshLock.take(), MeshLock.take()
    assert first.index != second.index
    first.close()
    second.close()


def test_a_handed_over_descriptor_keeps_the_lock(lock: MeshLock) -> None:
    adopted = MeshLock.adopt(os.dup(lock.fileno()))
    lock.close()
    assert adopted.index == INDEX
    with pytest.raises(IndexTaken):
        MeshLock.take(INDEX)
    adopted.close()


def test_another_socket_is_no_lock() -> None:
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(ValueError, match="not a mesh lock"):
        MeshLock.adopt(other.fileno())


def test_names() -> None:
    assert lock_name(3) == "\0retia-mesh-3"
    with pytest.raises(ValueError, match="0 to 15"):
        MeshLock.take(16)
