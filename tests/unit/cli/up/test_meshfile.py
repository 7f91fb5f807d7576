"""Mesh files: every spelling, every error at once with its line, and no other way to fail."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from retia.cli.up.meshfile import MeshFile, parse, start_order
from retia.cli.up.positions import ProblemsError


def mesh(text: str) -> MeshFile:
    return parse(textwrap.dedent(text), "retia.yaml")


def service(fields: str) -> Any:
    return mesh(f"services: {{web: {{command: run, {fields}}}}}").services["web"]


def problems(text: str) -> list[str]:
    with pytest.raises(ProblemsError) as raised:
        mesh(text)
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("80", (80, 0, "auto")),
        ("'80'", (80, 0, "auto")),
        ("80/http", (80, 0, "http")),
        ("'80:8080'", (80, 8080, "auto")),
        ("'80:8080/grpc'", (80, 8080, "grpc")),
        ("{port: 80, app_port: 81, protocol: tcp}", (80, 81, "tcp")),
    ],
)
def test_spellings_of_a_port(written: str, wanted: tuple[int, int, str]) -> None:
    (port,) = service(f"ports: [{written}]").ports
    assert (port.port, port.app_port, port.protocol) == wanted


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("8080", ("127.0.0.1", 8080, 0)),
        ("'8080:80'", ("127.0.0.1", 8080, 80)),
        ("['0.0.0.0:8080:80']", ("0.0.0.0", 8080, 80)),
        ("['[::1]:8080:80']", ("::1", 8080, 80)),
    ],
)
def test_spellings_of_a_published_port(written: str, wanted: tuple[str, int, int]) -> None:
    (item,) = service(f"ports: [80], publish: {written}").publish
    assert (item.address, item.host_port, item.port) == wanted


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("'a \"b c\"'", ("a", "b c")), ("[a, b c, 5]", ("a", "b c", "5")), ("a", ("a",))],
)
def test_a_command_is_a_list_or_split_as_a_shell_would(written: str, wanted: tuple[str, ...]) -> None:
    assert mesh(f"services: {{web: {{command: {written}}}}}").services["web"].command == wanted


@pytest.mark.parametrize("written", ["{A: x, B: 5, C: true, D: }", "[A=x, B=5, C=true, D=]"])
def test_environment_is_a_mapping_or_a_list(written: str) -> None:
    assert service(f"environment: {written}").environment == {"A": "x", "B": "5", "C": "true", "D": ""}


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("500ms", 0.5), ("5s", 5), ("1m30s", 90), ("7", 7), ("2.5", 2.5)],
)
def test_durations(written: str, wanted: float) -> None:
    assert service(f"stop_grace: {written}").stop_grace == wanted


@pytest.mark.parametrize(
    ("written", "kind", "fields"),
    [
        ("{http: /x, port: 9}", "http", {"path": "/x", "port": 9}),
        ("{tcp: 9, retries: 5}", "tcp", {"port": 9, "retries": 5}),
        ("{grpc: pkg.S, interval: 1s}", "grpc", {"service": "pkg.S", "interval": 1.0}),
        ("{grpc: true}", "grpc", {"service": ""}),
        ("{exec: ready -q}", "exec", {"command": ("ready", "-q")}),
    ],
)
def test_health_checks(written: str, kind: str, fields: dict[str, object]) -> None:
    check = service(f"ports: [80], healthcheck: {written}").healthcheck
    assert check.kind == kind
    assert {name: getattr(check, name) for name in fields} == fields


def test_restart_no_needs_no_quotes() -> None:
    assert service("restart: no").restart == "no"


def test_dependencies_are_a_list_or_a_mapping() -> None:
    found = mesh(
        """
        services:
          a: {command: x, depends_on: {b: healthy, c: {condition: started}}}
          b: {command: x, ports: [1], healthcheck: {tcp: 1}, depends_on: [c]}
          c: {command: x}
        """
    )
    assert start_order(found.services) == ["c", "b", "a"]
    assert found.services["a"].depends_on["b"].condition == "healthy"


def test_all_errors_come_at_once_each_with_its_line() -> None:
    assert problems(
        """\
        services:
          reviews:
            command: x
            port: [9080]
            healthcheck: {http: /, intervall: 5s}
            versions:
              - {name: V2}
          web:
            command: []
            ports: [x]
        """
    ) == [
        "retia.yaml:4: services.reviews.port: unknown field; did you mean 'ports'?",
        "retia.yaml:5: services.reviews.healthcheck.intervall: unknown field; did you mean 'interval'?",
        "retia.yaml:7: services.reviews.versions[0].name: 'V2' is no DNS label; use 1 to 63 lower-case "
        "letters, digits and hyphens, no hyphen at either end",
        "retia.yaml:9: services.web.command: is empty; name the program to run",
        "retia.yaml:10: services.web.ports[0]: 'x' is no port; write PORT[:APPPORT][/PROTOCOL], "
        "for example 80:8080/http",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "a mesh file is a mapping with 'services'"),
        (
            "services: {a: {command: x}, a: {command: y}}",
            "services.a: is given twice; the first is in line 1",
        ),
        ("services: {}\n---\nservices: {}", "retia.yaml:3: a mesh file is one document"),
        ("a: [", "not YAML"),
        ("services: {web: {}}", "has no command; give one to the service or to each of its versions"),
        ("services: {web: {command: x, ports: [1, 1]}}", "port 1 stands here twice"),
        (
            "services: {web: {command: x, publish: 80}}",
            "publishes port 0, which is not among its ports (none)",
        ),
        (
            "services: {a: {command: x, depends_on: [b]}}",
            "a depends on 'b', which is no service of this file",
        ),
        (
            "services: {a: {command: x, depends_on: [b]}, b: {command: x, depends_on: [a]}}",
            "depends_on runs in a circle: a -> b -> a",
        ),
        (
            "services: {a: {command: x, depends_on: {b: healthy}}, b: {command: x}}",
            "a waits for 'b' to be healthy, but that has no healthcheck",
        ),
        (
            "services: {a: {command: x, ports: [1], publish: 5}, b: {command: x, ports: [1], publish: 5}}",
            "b and a both publish host port 5",
        ),
        ("services: {Web_1: {command: x}}", "'Web_1' is no DNS label"),
        ("services: {web: {command: x, environment: {1A: x}}}", "'1A' cannot name an environment variable"),
        ("services: {web: {command: x, stop_grace: soon}}", "'soon' is no duration"),
        ('services: {web: {command: "a \'b"}}', "cannot be split into words"),
        ("services: {web: {command: x, replicas: -1}}", "greater than or equal to 0, not -1"),
        ("services: {web: {command: x, ports: [80], healthcheck: {http: /, tcp: 1}}}", "exactly one of http"),
    ],
)
def test_each_rule_has_its_message(text: str, message: str) -> None:
    assert message in "\n".join(problems(text))


def test_scalars_are_read_as_in_configuration() -> None:
    """By YAML 1.1, as by PyYAML itself, 22:22 is the number 1342 and ``no`` is false."""
    mesh = parse("services: {a: {command: x, restart: no, ports: [22:22], environment: {A: no}}}", "f")
    service = mesh.services["a"]
    assert [(port.port, port.app_port) for port in service.ports] == [(22, 22)]
    assert service.restart == "no"
    assert service.environment == {"A": "no"}


@pytest.mark.parametrize("text", ["", "services:", "services: {}", "{}"])
def test_an_empty_file_is_an_empty_mesh(text: str) -> None:
    assert parse(text, "x").services == {}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
TEXTS = """services web command ports versions name replicas environment publish healthcheck http depends_on
config upstreams restart env_file 80:1/http 5s"""
WORDS = st.sampled_from(TEXTS.split())
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(), inner, max_size=4),
    max_leaves=12,
)


def only_problems(text: str) -> None:
    try:
        parse(text, "f")
    except ProblemsError as error:
        assert error.problems
        assert all(str(problem).startswith("f") and "\n" not in str(problem) for problem in error.problems)


@given(VALUES)
def test_any_value_parses_or_gives_problems(value: object) -> None:
    only_problems(yaml.safe_dump(value))


@given(st.dictionaries(st.sampled_from(["command", "ports", "publish", "healthcheck", "versions"]), VALUES))
def test_any_service_parses_or_gives_problems(value: object) -> None:
    only_problems(yaml.safe_dump({"services": {"web": value}}))


@given(st.text(max_size=60))
def test_any_text_parses_or_gives_problems(text: str) -> None:
    only_problems(text)
