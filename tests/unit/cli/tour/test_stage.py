"""What a stage knows before it starts; the mesh itself is in the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

from retia.cli.tour.stage import expected_instances


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
