"""The mesh file (``retia.yaml``): its schema and its parsing.

A mesh file is to a mesh what a compose file is to containers: which programs run, under which service names,
with which configuration. The short spellings that people know (``"8080:80"``, a command as one string, a list
of ``KEY=value``) are normalised before validation, so that the models below have one form for each thing.
All errors of a file are reported at once, each with its line.

Nothing here reads the environment or any other file; :mod:`retia.cli.up.spec` does that.
"""

from __future__ import annotations

import difflib
import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from retia.cli.up.positions import Located, Problem, ProblemsError, load
from retia.config.paths import format_path

Protocol = Literal["http", "http2", "grpc", "tcp", "tls", "auto"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def dns_label(value: str) -> str:
    """``value``, or ValueError where it cannot be a part of a DNS name (RFC 1123, section 2.1)."""
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise ValueError(
            f"{value!r} is no DNS label; use 1 to 63 lower-case letters, digits and hyphens, "
            "no hyphen at either end"
        )
    return value


def _duration(value: Any) -> float:
    """Seconds; ``5``, ``"5s"``, ``"1m30s"``, ``"500ms"``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and "".join(n + u for n, u in parts) == value:
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
    raise ValueError(f"{value!r} is no duration; write for example 500ms, 5s or 1m30s")


def _command(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as error:
            raise ValueError(f"cannot be split into words: {error}") from error
    if isinstance(value, list):
        value = [str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for v in value]
    if value in ([], ()):
        raise ValueError("is empty; name the program to run")
    return value


def _pairs(value: Any) -> Any:
    """A mapping from a mapping or from a list of ``KEY=value``."""
    if value is None:
        return {}
    if isinstance(value, list):
        result: dict[str, str] = {}
        for item in value:
            key, equals, text = str(item).partition("=")
            if not equals:
                raise ValueError(f"{item!r} has no '='; write KEY=value")
            result[key] = text
        return result
    if isinstance(value, dict):
        return {str(k): _text(v) for k, v in value.items()}
    raise ValueError("must be a mapping or a list of KEY=value")


def _text(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _environment(value: Any) -> Any:
    pairs = _pairs(value)
    for key in pairs:
        if not _VARIABLE.fullmatch(key):
            raise ValueError(f"{key!r} cannot name an environment variable")
    return pairs


def _one_or_more(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


def _port(value: Any) -> Any:
    """A port's long form from ``9080``, ``"80:8080"``, ``"80:8080/http"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"port": value}
    if not isinstance(value, str):
        return value
    numbers, slash, protocol = value.partition("/")
    port, colon, app_port = numbers.partition(":")
    if not port.isdigit() or (colon and not app_port.isdigit()) or (slash and not protocol):
        raise ValueError(f"{value!r} is no port; write PORT[:APPPORT][/PROTOCOL], for example 80:8080/http")
    result: dict[str, Any] = {"port": int(port)}
    if colon:
        result["app_port"] = int(app_port)
    if slash:
        result["protocol"] = protocol
    return result


def _publish(value: Any) -> Any:
    """``8080``, ``"8080:80"`` or ``"0.0.0.0:8080:80"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"host_port": value}
    if not isinstance(value, str):
        return value
    parts = value.rsplit(":", 2)
    numbers = parts if len(parts) < 3 else parts[1:]
    if not all(p.isdigit() for p in numbers):
        raise ValueError(f"{value!r} is not [ADDRESS:]HOSTPORT[:PORT], for example 8080:80")
    result: dict[str, Any] = {"host_port": int(numbers[0])}
    if len(numbers) == 2:
        result["port"] = int(numbers[1])
    if len(parts) == 3:
        result["address"] = parts[0].strip("[]")
    return result


def _restart(value: Any) -> Any:
    """YAML 1.1 reads a bare ``no`` as false."""
    return "no" if value is False else value


def _depends_on(value: Any) -> Any:
    """A mapping of name to ``{condition: ...}`` from a list of names or short mappings."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        return {str(name): {} for name in value}
    if isinstance(value, dict):
        return {str(k): {"condition": v} if isinstance(v, str) else (v or {}) for k, v in value.items()}
    return value


def _healthcheck(value: Any) -> Any:
    """``{http: /ready}``, ``{tcp: 5432}``, ``{grpc: name}``, ``{exec: [cmd]}`` as one form."""
    if not isinstance(value, dict):
        return value
    kinds = [k for k in ("http", "tcp", "grpc", "exec") if k in value]
    if len(kinds) != 1:
        raise ValueError("must have exactly one of http, tcp, grpc, exec")
    kind = kinds[0]
    rest = {k: v for k, v in value.items() if k != kind}
    given = value[kind]
    rest["kind"] = kind
    if kind == "http":
        rest["path"] = given if given is not None else "/"
    elif kind == "tcp":
        if given not in (None, True):
            rest["port"] = given
    elif kind == "grpc":
        rest["service"] = "" if given in (None, True) else given
    else:
        rest["command"] = _command(given)
    return rest


def _gateways(value: Any) -> Any:
    """A mapping of name to settings from a name, a list of names, or a mapping."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        return {str(name): {} for name in value}
    return {name: settings or {} for name, settings in value.items()} if isinstance(value, dict) else value


def _port_map(value: Any) -> Any:
    """``{80: 8080}`` from itself or from a list of ``"80:8080"`` and ``31400``."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        return {} if value is None else value
    found: dict[Any, Any] = {}
    for item in value:
        port, colon, bound = str(item).partition(":")
        if not port.isdigit() or (colon and not bound.isdigit()):
            raise ValueError(f"{item!r} is not PORT[:BOUND], for example 80:8080")
        found[int(port)] = int(bound) if colon else int(port)
    return found


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0, le=86_400)]
Period = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=3600)]
DnsLabel = Annotated[str, BeforeValidator(dns_label)]
Command = Annotated[tuple[str, ...], BeforeValidator(_command)]
PortNumber = Annotated[int, Field(ge=1, le=65535, strict=True)]
PortKey = Annotated[int, Field(ge=1, le=65535)]
Environment = Annotated[dict[str, str], BeforeValidator(_environment)]
Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]
Files = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=4096)], ...],
    BeforeValidator(_one_or_more),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Port(_Part):
    """A port of a service."""

    port: PortNumber
    """What callers use."""
    app_port: int = Field(default=0, ge=0, le=65535, strict=True)
    """What the program listens on; 0: the same."""
    protocol: Protocol = "auto"


class Publish(_Part):
    """A port of this machine that leads to the service, for callers outside the mesh."""

    host_port: PortNumber
    port: int = Field(default=0, ge=0, le=65535, strict=True)
    """The service's port; 0: its first."""
    address: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    """The address to listen on; ``0.0.0.0`` for callers on other machines."""


class HealthCheck(_Part):
    """How to see whether an instance can take requests; an unhealthy one leaves the endpoints."""

    kind: Literal["http", "tcp", "grpc", "exec"]
    path: str = Field(default="/", pattern=r"^/")
    port: int = Field(default=0, ge=0, le=65535, strict=True)
    """The program's own port; 0: its first."""
    service: str = ""
    command: tuple[str, ...] = ()
    interval: Period = 5.0
    timeout: Annotated[float, BeforeValidator(_duration), Field(gt=0, le=600)] = 2.0
    retries: int = Field(default=3, ge=1, le=100)
    """Failures in a row until it counts as unhealthy."""
    start_period: Annotated[float, BeforeValidator(_duration), Field(ge=0, le=3600)] = 0.0
    """Failures this soon after the start are not counted."""


class Dependency(_Part):
    condition: Literal["started", "healthy"] = "started"
    """``started``: it listens on its ports; ``healthy``: its health check passes as well."""


class Upstream(_Part):
    """A service at a port of 127.0.0.1, for programs under explicit capture."""

    service: str = Field(min_length=1, max_length=253)
    port: PortNumber
    local_port: int = Field(default=0, ge=0, le=65535, strict=True)
    """0: a free one."""
    env: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """A variable that gets ``http://127.0.0.1:<local port>``."""


class Version(_Part):
    """One version of a service; what it does not say, it takes from the service."""

    name: DnsLabel
    command: Command | None = None
    replicas: int | None = Field(default=None, ge=0, le=1000)
    environment: Environment = {}
    env_file: Files = ()
    working_dir: str | None = None
    labels: Pairs = {}
    annotations: Pairs = {}


class Service(_Part):
    """A program, its name in the mesh, and how to keep it running."""

    command: Command | None = None
    """May be absent where every version has one."""
    namespace: DnsLabel | None = None
    ports: tuple[Annotated[Port, BeforeValidator(_port)], ...] = ()
    replicas: int = Field(default=1, ge=0, le=1000)
    versions: tuple[Version, ...] = ()
    environment: Environment = {}
    env_file: Files = ()
    working_dir: str = "."
    healthcheck: Annotated[HealthCheck, BeforeValidator(_healthcheck)] | None = None
    depends_on: Annotated[dict[str, Dependency], BeforeValidator(_depends_on)] = {}
    restart: Annotated[Literal["no", "on-failure", "always"], BeforeValidator(_restart)] = "no"
    publish: Annotated[
        tuple[Annotated[Publish, BeforeValidator(_publish)], ...], BeforeValidator(_one_or_more)
    ] = ()
    capture: Literal["auto", "ebpf", "explicit"] = "auto"
    upstreams: tuple[Upstream, ...] = ()
    labels: Pairs = {}
    annotations: Pairs = {}
    service_account: DnsLabel | None = None
    user: str = ""
    """The user to run as (needs root); empty: who runs ``retia up``."""
    stop_grace: Duration = 10.0
    """From SIGTERM to SIGKILL."""

    @field_validator("ports")
    @classmethod
    def _ports_differ(cls, ports: tuple[Port, ...]) -> tuple[Port, ...]:
        numbers = [p.port for p in ports]
        twice = sorted({n for n in numbers if numbers.count(n) > 1})
        if twice:
            raise ValueError(f"port {twice[0]} stands here twice")
        return ports

    @field_validator("versions")
    @classmethod
    def _versions_differ(cls, versions: tuple[Version, ...]) -> tuple[Version, ...]:
        names = [v.name for v in versions]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"version {twice[0]!r} stands here twice")
        return versions

    @model_validator(mode="after")
    def _can_run(self) -> Service:
        if self.command is None and (not self.versions or any(v.command is None for v in self.versions)):
            raise ValueError("has no command; give one to the service or to each of its versions")
        known = {p.port for p in self.ports}
        for publish in self.publish:
            if publish.port not in known and (publish.port or not self.ports):
                have = ", ".join(map(str, sorted(known))) or "none"
                raise ValueError(f"publishes port {publish.port}, which is not among its ports ({have})")
        check = self.healthcheck
        if check and check.kind != "exec" and not check.port and not self.ports:
            raise ValueError("has a health check but no ports; give the check a port")
        return self


class Gateway(_Part):
    """A way into the mesh, or out of it: an Envoy that listens as ``Gateway`` objects say."""

    namespace: DnsLabel | None = None
    """Where its secrets are looked for."""
    labels: Pairs = {}
    """Added to its own, by which Gateway objects select it: ``istio: ingressgateway`` (of one whose name has
    ``egress`` in it ``istio: egressgateway``)."""
    annotations: Pairs = {}
    address: str = Field(default="0.0.0.0", pattern=r"^[0-9a-fA-F.:]+$")
    """The address to listen on."""
    ports: Annotated[dict[PortKey, PortNumber], BeforeValidator(_port_map)] = {}
    """Ports of Gateway objects and where they are bound instead; others are bound as they are. Without the
    right to bind ports below 1024, 80 is bound at 8080 and 443 at 8443 where nothing is said."""
    http3: bool = Field(default=False, strict=True)
    """HTTP/3 as well, wherever it ends HTTPS."""
    trusted_proxies: int = Field(default=0, ge=0, le=100, strict=True)
    """Proxies before it that are trusted to say the client's address."""
    service_account: DnsLabel | None = None


class RateLimit(_Part):
    """The counting service behind limits with ``scope: Global``, in the root namespace."""

    redis: str = Field(default="", pattern=r"^(|(redis|rediss|unix)://.+)$")
    """Where counters are kept: ``redis://HOST:PORT/DB``, variables filled in; empty: in memory."""
    replicas: int = Field(default=1, ge=1, le=100, strict=True)
    """Several need Redis: in memory each would count for itself."""
    metrics_port: int = Field(default=0, ge=0, le=65535, strict=True)
    """Health and metrics on 127.0.0.1; 0: none."""

    @model_validator(mode="after")
    def _counts_once(self) -> RateLimit:
        if self.replicas > 1 and not self.redis:
            raise ValueError("has several replicas, which need redis: in memory each would count for itself")
        if self.replicas > 1 and self.metrics_port:
            raise ValueError("has several replicas, which can't share metrics_port")
        return self


class MeshFile(_Part):
    """A whole mesh file."""

    name: DnsLabel | None = None
    namespace: DnsLabel = "default"
    """For services that name none."""
    config: Files = ()
    """Files and folders of configuration, relative to the mesh file, applied at start."""
    services: dict[DnsLabel, Service] = {}
    gateways: Annotated[dict[DnsLabel, Gateway], BeforeValidator(_gateways)] = {}
    """By name; a list of names does as well."""
    ratelimit: RateLimit | None = None
    """Absent: it runs, with counters in memory, where the configuration has a global limit."""

    @field_validator("services", mode="before")
    @classmethod
    def _names(cls, services: Any) -> Any:
        return {} if services is None else services

    @model_validator(mode="after")
    def _fits_together(self) -> MeshFile:
        _check_dependencies(self.services)
        _check_publish(self.services)
        for name in self.gateways:
            if name in self.services:
                raise ValueError(f"{name} is a service and a gateway; give one of them another name")
        if self.ratelimit is not None and "ratelimit" in {*self.services, *self.gateways}:
            raise ValueError("has ratelimit twice: by itself, and as a service or gateway of that name")
        return self


def parse(text: str, name: str) -> MeshFile:
    """The mesh file in ``text``; ``name`` is what errors call it. Raises :class:`ProblemsError`."""
    return parse_located(text, name)[0]


def parse_located(text: str, name: str) -> tuple[MeshFile, Located]:
    """As :func:`parse`, with the table of lines for later complaints."""
    located = load(text, name)
    value = {} if located.value is None else located.value
    if not isinstance(value, dict):
        raise ProblemsError([Problem(name, 1, "", "a mesh file is a mapping with 'services'")])
    try:
        return MeshFile.model_validate(value), located
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            at = tuple(p for p in detail["loc"] if p != "[key]")
            problems.append(Problem(name, located.line(at), format_path(at), _message(detail, at)))
        raise ProblemsError(sorted(problems, key=lambda p: p.line)) from error


def _check_dependencies(services: dict[str, Service]) -> None:
    for name, service in services.items():
        for needed, how in service.depends_on.items():
            if needed not in services:
                known = ", ".join(sorted(services))
                raise ValueError(f"{name} depends on {needed!r}, which is no service of this file ({known})")
            if how.condition == "healthy" and services[needed].healthcheck is None:
                raise ValueError(f"{name} waits for {needed!r} to be healthy, but that has no healthcheck")
    start_order(services)


def start_order(services: dict[str, Service]) -> list[str]:
    """Names, each after all that it depends on, otherwise as written; ValueError for a circle."""
    order: list[str] = []
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in done:
            return
        if name in above:
            circle = " -> ".join((*above[above.index(name) :], name))
            raise ValueError(f"depends_on runs in a circle: {circle}")
        for needed in services[name].depends_on:
            visit(needed, (*above, name))
        done.add(name)
        order.append(name)

    for name in services:
        visit(name, ())
    return order


def _check_publish(services: dict[str, Service]) -> None:
    taken: dict[int, str] = {}
    for name, service in services.items():
        for publish in service.publish:
            if publish.host_port in taken:
                raise ValueError(
                    f"{name} and {taken[publish.host_port]} both publish host port {publish.host_port}"
                )
            taken[publish.host_port] = name


def _message(detail: Any, at: tuple[Any, ...]) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(at[-1]), _known_fields(at), 1)
        return "unknown field" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return "is required"
    text = str(detail["msg"]).removeprefix("Value error, ")
    if kind in ("value_error", "assertion_error"):
        return text
    given = detail.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return text[0].lower() + text[1:] + shown


def _known_fields(at: tuple[Any, ...]) -> list[str]:
    words = [p for p in at[:-1] if isinstance(p, str)]
    model: type[BaseModel] = MeshFile
    if words[:1] == ["services"]:
        model = Service
        if "versions" in words:
            model = Version
        elif "healthcheck" in words:
            return [*HealthCheck.model_fields, "http", "tcp", "grpc", "exec"]
        elif "ports" in words:
            model = Port
        elif "publish" in words:
            model = Publish
    elif words[:1] == ["gateways"]:
        model = Gateway
    return list(model.model_fields)
