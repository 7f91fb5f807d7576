"""How a stage prepares its mesh file; the mesh itself is in the end-to-end tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retia.cli.tour import shop
from retia.cli.tour.stage import Stage, expected_instances
from retia.cli.up.spec import load


@pytest.mark.parametrize("capture", ["ebpf", "explicit"])
def test_a_chosen_capture_holds_for_every_program_and_nothing_else_changes(
    tmp_path: Path, capture: str
) -> None:
    stage = Stage(shop.mesh_file(), capture, home=tmp_path)
    chosen = load(stage.file_with_capture(), os.environ)
    plain = load(shop.mesh_file(), os.environ)
    assert {spec.capture for spec in chosen.specs.values()} == {capture}
    assert {slot: (s.command, s.cwd, s.environment) for slot, s in chosen.specs.items()} == {
        slot: (s.command, s.cwd, s.environment) for slot, s in plain.specs.items()
    }
    assert [d.text for d in chosen.documents] == [d.text for d in plain.documents]


def test_expected_instances_count_versions_and_replicas(tmp_path: Path) -> None:
    file = tmp_path / "retia.yaml"
    file.write_text(
        """
services:
  a: {command: "true", replicas: 3}
  b: {command: "true", replicas: 2, versions: [{name: v1}, {name: v2, replicas: 0}]}
"""
    )
    assert expected_instances(file) == 5
