"""A mesh file and its surroundings as specs: one frozen value for everything that runs.

Here the file meets the machine: variables are filled in, ``env_file`` and configuration are read, programs
and folders are looked for. Everything that is wrong is collected and reported at once, with its line, before
anything is started.

Two expressions stay in the specs, because only the start of an instance decides them: ``${upstream:...}`` and
``${port:...}`` (see :mod:`retia.cli.up.expressions`).
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retia.api.local import HealthCheck, PortSpec, UpstreamSpec
from retia.api.schema import Document
from retia.cli.documents import SUFFIXES, files_in
from retia.cli.errors import CliError
from retia.cli.run import find_program
from retia.cli.up import counting, expressions, gateways
from retia.cli.up.meshfile import MeshFile, Service, Version, parse_located, start_order
from retia.cli.up.positions import Problem, ProblemsError
from retia.config.paths import format_path
from retia.config.schema.base import Path as At
from retia.model import annotation, limit
from retia.model.ids import MESH_NAMESPACE

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A place for one running program."""

    namespace: str
    service: str
    version: str
    number: int

    def __str__(self) -> str:
        parts = [self.service, self.version, str(self.number)]
        return "-".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that a slot's program is started with. Equal specs need no replacement."""

    slot: Slot
    command: tuple[str, ...]
    cwd: str
    environment: Pairs = ()
    ports: tuple[PortSpec, ...] = ()
    upstreams: tuple[UpstreamSpec, ...] = ()
    labels: Pairs = ()
    annotations: Pairs = ()
    service_account: str = ""
    capture: str = "auto"
    health: HealthCheck | None = None
    user: str = ""

    @property
    def gateway(self) -> str:
        """The gateway that it is, by its name; empty: a program."""
        return dict(self.annotations).get(annotation.GATEWAY, "")


@dataclass(frozen=True, slots=True)
class Care:
    """How a service's instances are looked after; a change of it restarts nothing."""

    restart: str = "no"
    stop_grace_s: float = 10.0
    depends_on: Pairs = ()
    """Service name and condition."""


@dataclass(frozen=True, slots=True)
class PublishSpec:
    """A port of this machine that leads to a service."""

    address: str
    host_port: int
    host: str
    """``<service>.<namespace>``."""
    port: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that a mesh file asks for."""

    name: str = ""
    specs: Mapping[Slot, Spec] = field(default_factory=dict)
    care: Mapping[str, Care] = field(default_factory=dict)
    """By service name."""
    order: tuple[str, ...] = ()
    """Service names, each after what it depends on."""
    publish: tuple[PublishSpec, ...] = ()
    documents: tuple[Document, ...] = ()


def load(path: Path, environ: Mapping[str, str]) -> Wanted:
    """Reads a mesh file and everything that it names; :class:`ProblemsError` with all that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot read the mesh file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CliError(f"the mesh file {path} is not UTF-8 text (byte {error.start})") from error
    return resolve(text, str(path), path.absolute().parent, environ)


def resolve(text: str, name: str, folder: Path, environ: Mapping[str, str]) -> Wanted:
    """The mesh file in ``text`` as if it lay in ``folder``."""
    mesh, located = parse_located(text, name)
    reader = _Reader(folder, environ)
    documents = tuple(reader.documents(mesh))
    counters = tuple(reader.counters(mesh, documents))
    found = (*counters, *reader.specs(mesh), *_gateway_specs(mesh, str(folder)))
    specs = {spec.slot: spec for spec in found}
    if reader.problems:
        problems = [Problem(name, located.line(at), format_path(at), text) for at, text in reader.problems]
        raise ProblemsError(sorted(problems, key=lambda p: p.line))
    return Wanted(
        name=mesh.name or folder.name,
        specs=specs,
        care={
            **{key: _care(service) for key, service in mesh.services.items()},
            **{key: Care(restart="always", stop_grace_s=1.0) for key in mesh.gateways},
            **{spec.slot.service: Care("always", counting.GRACE_S) for spec in counters},
        },
        # Limits are asked for from the first request on.
        order=(*{spec.slot.service: None for spec in counters}, *start_order(mesh.services), *mesh.gateways),
        publish=tuple(_publishes(mesh)),
        documents=documents,
    )


def _gateway_specs(mesh: MeshFile, folder: str) -> Iterator[Spec]:
    privileged = gateways.may_bind_low_ports()
    for name, gateway in mesh.gateways.items():
        edge = gateways.describe(
            name,
            ports=gateway.ports,
            address=gateway.address,
            labels=gateway.labels,
            annotations=gateway.annotations,
            trusted_proxies=gateway.trusted_proxies,
            http3=gateway.http3,
            privileged=privileged,
        )
        yield Spec(
            slot=Slot(gateway.namespace or mesh.namespace, name, "", 0),
            command=gateways.COMMAND,
            cwd=folder,
            ports=edge.ports,
            labels=tuple(sorted(edge.labels.items())),
            annotations=tuple(sorted(edge.annotations.items())),
            service_account=gateway.service_account or "",
            capture="explicit",
        )


def _care(service: Service) -> Care:
    depends_on = tuple((name, how.condition) for name, how in sorted(service.depends_on.items()))
    return Care(service.restart, service.stop_grace, depends_on)


def _publishes(mesh: MeshFile) -> Iterator[PublishSpec]:
    for name, service in mesh.services.items():
        host = f"{name}.{service.namespace or mesh.namespace}"
        for item in service.publish:
            port = item.port or service.ports[0].port
            yield PublishSpec(item.address, item.host_port, host, port)


class _Reader:
    """Makes specs and collects problems as (path in the file, message)."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.problems: list[tuple[At, str]] = []

    def specs(self, mesh: MeshFile) -> Iterator[Spec]:
        for name, service in mesh.services.items():
            at: At = ("services", name)
            self._check_user(service, at)
            versions = service.versions or (None,)
            for index, version in enumerate(versions):
                where = at if version is None else (*at, "versions", index)
                yield from self._version(
                    name, service, version, service.namespace or mesh.namespace, at, where
                )

    def counters(self, mesh: MeshFile, documents: Iterable[Document]) -> Iterator[Spec]:
        """The counting service, where it is wanted."""
        settings = counting.wanted(mesh, documents)
        if settings is None:
            return
        redis = self._fill(settings.redis, ("ratelimit", "redis"))
        for number in range(settings.replicas):
            yield Spec(
                slot=Slot(MESH_NAMESPACE, limit.SERVICE, "", number),
                command=counting.command(settings, redis),
                cwd=str(self._folder),
                ports=(PortSpec(number=limit.PORT, protocol="grpc"),),
            )

    def _version(
        self, name: str, service: Service, version: Version | None, namespace: str, at: At, where: At
    ) -> Iterator[Spec]:
        chosen = version or Version(name="v1")
        cwd = self._folder_at(service.working_dir, (*at, "working_dir"))
        if chosen.working_dir is not None:
            cwd = self._folder_at(chosen.working_dir, (*where, "working_dir"))
        environment = self._environment(service, (), at)
        if version is not None:
            environment = self._environment(version, tuple(environment.items()), where)
        own = version is not None and version.command is not None
        given = (chosen.command if own else service.command) or ()
        command_at = (*(where if own else at), "command")
        command = tuple(self._fill(word, command_at) for word in given)
        self._check_program(command, cwd, environment, command_at)
        self._check_expressions(service, command, environment, where)
        labels = {**service.labels, **chosen.labels}
        if version is not None:
            labels["version"] = version.name
        replicas = service.replicas if chosen.replicas is None else chosen.replicas
        for number in range(replicas):
            yield Spec(
                slot=Slot(namespace, name, version.name if version else "", number),
                command=command,
                cwd=str(cwd),
                environment=tuple(sorted(environment.items())),
                ports=tuple(
                    PortSpec(number=p.port, app_port=p.app_port, protocol=p.protocol) for p in service.ports
                ),
                upstreams=tuple(
                    UpstreamSpec(host=u.service, port=u.port, local_port=u.local_port, env=u.env)
                    for u in service.upstreams
                ),
                labels=tuple(sorted(labels.items())),
                annotations=tuple(sorted({**service.annotations, **chosen.annotations}.items())),
                service_account=service.service_account or "",
                capture=service.capture,
                health=_health(service),
                user=service.user,
            )

    def _environment(self, part: Service | Version, base: Pairs, at: At) -> dict[str, str]:
        result = dict(base)
        for index, file in enumerate(part.env_file):
            result.update(self._env_file(self._folder / file, (*at, "env_file", index)))
        for key, value in part.environment.items():
            result[key] = self._fill(value, (*at, "environment", key))
        return result

    def _env_file(self, path: Path, at: At) -> dict[str, str]:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self.problems.append((at, f"cannot read {path}: {reason}"))
            return {}
        result: dict[str, str] = {}
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip().removeprefix("export ").strip()
            if not line or line.startswith("#"):
                continue
            key, equals, value = line.partition("=")
            if not equals or not key.strip().isidentifier():
                self.problems.append((at, f"{path}:{number}: {raw!r} is not KEY=value"))
                continue
            result[key.strip()] = _unquote(value.strip())
        return result

    def _fill(self, text: str, at: At) -> str:
        try:
            return expressions.fill_variables(text, self._environ)
        except ValueError as error:
            self.problems.append((at, str(error)))
            return text

    def _folder_at(self, given: str, at: At) -> Path:
        path = (self._folder / Path(given).expanduser()).resolve()
        if not path.is_dir():
            self.problems.append((at, f"there is no folder {path}"))
        return path

    def _check_program(
        self, command: tuple[str, ...], cwd: Path, environment: dict[str, str], at: At
    ) -> None:
        if not command:
            return
        path = environment.get("PATH") or self._environ.get("PATH") or os.defpath
        name = command[0]
        try:
            find_program(str(cwd / name) if "/" in name else name, path)
        except CliError as error:
            self.problems.append(
                (at, str(error).replace("; check the command after '--'", "; check the command"))
            )

    def _check_user(self, service: Service, at: At) -> None:
        if not service.user:
            return
        try:
            uid = pwd.getpwnam(service.user).pw_uid
        except KeyError:
            self.problems.append(((*at, "user"), f"there is no user {service.user!r} on this machine"))
            return
        if os.geteuid() not in (0, uid):
            self.problems.append(((*at, "user"), f"only root may run programs as {service.user!r}"))

    def _check_expressions(
        self, service: Service, command: tuple[str, ...], environment: dict[str, str], at: At
    ) -> None:
        known = {p.port for p in service.ports}
        try:
            used = expressions.find((*command, *environment.values()))
        except ValueError as error:
            self.problems.append((at, str(error)))
            return
        for port in used.ports:
            if port not in known:
                have = ", ".join(map(str, sorted(known))) or "none"
                self.problems.append((at, f"${{port:{port}}} is none of the service's ports ({have})"))

    def documents(self, mesh: MeshFile) -> Iterator[Document]:
        for index, given in enumerate(mesh.config):
            at: At = ("config", index) if len(mesh.config) > 1 else ("config",)
            path = self._folder / given
            if path.is_dir():
                files = files_in(path)
                if not files:
                    self.problems.append((at, f"no file ending in {', '.join(SUFFIXES)} in {path}"))
            else:
                files = [path]
            for file in files:
                try:
                    yield Document(path=str(file), text=file.read_text(encoding="utf-8"))
                except (OSError, UnicodeDecodeError) as error:
                    reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                    self.problems.append((at, f"cannot read {file}: {reason}"))


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _health(service: Service) -> HealthCheck | None:
    check = service.healthcheck
    if check is None:
        return None
    return HealthCheck(
        kind=check.kind,
        port=check.port,
        path=check.path,
        service=check.service,
        command=check.command,
        interval_s=check.interval,
        timeout_s=check.timeout,
        unhealthy_threshold=check.retries,
        start_period_s=check.start_period,
    )
