from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.node import cgroups
from retia.node.capture import local_addresses
from retia.node.errors import CaptureUnavailable


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_id_makes_a_folder_name_and_comes_back(name: str) -> None:
    folder = cgroups.folder_name(name)
    assert "/" not in folder
    assert folder not in (".", "..")
    assert cgroups.id_of(folder) == name


@pytest.mark.parametrize("name", [".", ".."])
def test_an_id_of_dots_stays_where_it_belongs(name: str) -> None:
    assert set(cgroups.folder_name(name)) == set("%2E")
    assert cgroups.id_of(cgroups.folder_name(name)) == name


def test_cgroup2_is_found_beside_version_1(tmp_path: Path) -> None:
    unified = tmp_path / "with space"
    unified.mkdir()
    (unified / "cgroup.procs").touch()
    mounts = tmp_path / "mounts"
    shown = str(unified).replace(" ", r"\040")
    mounts.write_text(
        f"tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /x cgroup rw 0 0\nnone {shown} cgroup2 rw 0 0\n"
    )
    assert cgroups.find_cgroup2(mounts) == unified


def test_a_host_without_cgroup2_is_told_what_to_do(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("cgroup /x cgroup rw 0 0\n")
    with pytest.raises(CaptureUnavailable, match="mount -t cgroup2"):
        cgroups.find_cgroup2(mounts)


def test_host_addresses_are_read_from_the_routing_table(tmp_path: Path) -> None:
    fib = tmp_path / "fib_trie"
    fib.write_text(
        """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 10.1.2.0
        /24 link UNICAST
     |-- 10.1.2.3
        /32 host LOCAL
     |-- 10.1.2.255
        /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
"""
    )
    assert local_addresses(fib) == {"10.1.2.3"}
    assert local_addresses(tmp_path / "none") == frozenset()
