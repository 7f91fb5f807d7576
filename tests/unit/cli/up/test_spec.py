"""A mesh file and its surroundings as specs."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from retia.cli.up.positions import ProblemsError
from retia.cli.up.spec import Slot, Wanted, resolve

ENV = {"PATH": os.environ["PATH"], "COLOUR": "red"}


def wanted(folder: Path, text: str) -> Wanted:
    return resolve(textwrap.dedent(text), "retia.yaml", folder, ENV)


def problems(folder: Path, text: str) -> str:
    with pytest.raises(ProblemsError) as raised:
        wanted(folder, text)
    return str(raised.value)


def test_versions_and_replicas_become_slots_and_inherit(tmp_path: Path) -> None:
    found = wanted(
        tmp_path,
        """
        namespace: shop
        services:
          reviews:
            command: sleep 1
            ports: ["80:8080/http"]
            environment: {A: service, C: "${COLOUR}"}
            labels: {team: books}
            versions:
              - {name: v1, replicas: 2}
              - {name: v2, command: sleep 2, environment: {A: version}}
        """,
    )
    assert [str(slot) for slot in sorted(found.specs)] == ["reviews-v1-0", "reviews-v1-1", "reviews-v2-0"]
    v1, v2 = (found.specs[Slot("shop", "reviews", v, 0)] for v in ("v1", "v2"))
    assert (v1.command, v2.command) == (("sleep", "1"), ("sleep", "2"))
    assert dict(v1.environment) == {"A": "service", "C": "red"}
    assert dict(v2.environment) == {"A": "version", "C": "red"}
    assert dict(v2.labels) == {"team": "books", "version": "v2"}
    assert (v1.ports[0].number, v1.ports[0].app_port, v1.ports[0].protocol) == (80, 8080, "http")


def test_env_files_are_read_first(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("# comment\nexport A=file\nB='quoted value'\n\n")
    found = wanted(tmp_path, "services: {web: {command: sleep 1, env_file: e, environment: {A: mesh}}}")
    assert dict(found.specs[Slot("default", "web", "", 0)].environment) == {"A": "mesh", "B": "quoted value"}


def test_configuration_is_read_with_folders(tmp_path: Path) -> None:
    (tmp_path / "config" / "sub").mkdir(parents=True)
    (tmp_path / "config" / "sub" / "a.yaml").write_text("a")
    (tmp_path / "one.yaml").write_text("b")
    found = wanted(tmp_path, "config: [config, one.yaml]")
    assert [d.text for d in found.documents] == ["a", "b"]


def test_everything_wrong_around_the_file_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("nonsense line\n")
    (tmp_path / "plain").write_text("x")
    text = problems(
        tmp_path,
        """\
        config: none.yaml
        services:
          a: {command: no-such-program-here}
          b: {command: ./plain}
          c: {command: sleep, working_dir: nowhere}
          d: {command: sleep, env_file: [e, missing]}
          e: {command: "sleep ${UNSET}"}
          f: {command: sleep, user: no-such-user}
          g: {command: "sleep ${port:80}"}
        """,
    )
    for line, message in (
        (1, f"config: cannot read {tmp_path}/none.yaml: No such file or directory"),
        (3, "services.a.command: there is no program 'no-such-program-here' in PATH; check the command"),
        (4, f"{tmp_path}/plain may not be executed"),
        (5, f"services.c.working_dir: there is no folder {tmp_path}/nowhere"),
        (6, "services.d.env_file[0]: "),
        (6, "services.d.env_file[1]: cannot read"),
        (7, "services.e.command: the variable UNSET is not set; set it, or write ${UNSET:-default}"),
        (8, "services.f.user: there is no user 'no-such-user' on this machine"),
        (9, "services.g: ${port:80} is none of the service's ports (none)"),
    ):
        assert any(p.startswith(f"retia.yaml:{line}: ") and message in p for p in text.splitlines()), message


def test_what_is_published_names_service_and_port(tmp_path: Path) -> None:
    found = wanted(tmp_path, "services: {web: {command: sleep, ports: [80], publish: ['8080:80', 8081]}}")
    assert [(p.host_port, p.host, p.port) for p in found.publish] == [
        (8080, "web.default", 80),
        (8081, "web.default", 80),
    ]
