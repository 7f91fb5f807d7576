"""A case as it is written: a mesh, its configuration, calls and what is expected of them.

``README.md`` describes the format. Reading is strict: an unknown key is an error, so that a misspelt
expectation can't pass by being ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CASES = Path(__file__).with_name("cases")
METHODS = ("get", "post", "put", "delete", "head", "options", "patch", "trace")
HARNESSES = ("generated", "real")


class CaseError(ValueError):
    """A case is written wrongly."""


@dataclass(frozen=True)
class Member:
    """A service of the mesh (one instance for each version), or a caller that is none (``client``)."""

    name: str
    namespace: str = "default"
    versions: tuple[str, ...] = ("v1",)
    port: int = 9080
    protocol: str = "http"
    ports: tuple[Mapping[str, Any], ...] = ()
    """Instead of ``port`` and ``protocol``: ``{port, protocol, app_port}`` each."""
    account: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    host: str = "here"
    """The machine it runs on."""
    gateway: str = ""
    """``ip:port`` of that machine's gateway; empty: none."""
    locality: str = ""
    http_inbound: bool = False
    client: bool = False
    """It offers nothing."""
    healthy: bool = True
    plain: bool = False
    """Real run: the other side is no proxy and speaks no mutual TLS."""


@dataclass(frozen=True)
class Outside:
    """A server outside the mesh, known by a label in expectations."""

    name: str
    address: str
    """``ip:port``; addresses of 192.0.2.0/24 and 198.51.100.0/24 are replaced by reachable ones."""
    host: str = ""
    """A name that DNS knows it by; empty: none."""
    tls: bool = False
    http2: bool = False


@dataclass(frozen=True)
class GatewayProxy:
    """A gateway's Envoy."""

    name: str
    namespace: str = "istio-system"
    labels: Mapping[str, str] = field(default_factory=lambda: {"istio": "ingressgateway"})
    account: str = "gateway"
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Upstream:
    """How the other side behaves."""

    delay_s: float = 0.0
    status: int = 200
    fail: int = 0
    """The first so many attempts of a request get ``status``, the others 200; 0: all get it."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CallSpec:
    """One call (or ``times`` equal ones) and what is expected."""

    number: int
    expect: Mapping[str, Any]
    sender: str = ""
    """``name[.namespace][/version]``; empty: whoever needs no name."""
    at: str = ""
    """``gateway/<name>:<port>``, or ``<member>:<port>`` for its inbound side; empty: the caller's sidecar."""
    method: str = ""
    """Empty: no HTTP."""
    url: str = ""
    connect: str = ""
    """``host:port``: bytes."""
    redis: tuple[str, ...] = ()
    """Words of a command that is sent on the connection."""
    dial: str = ""
    """``host:port`` to connect to, where it isn't the URL's."""
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    sni: str = ""
    alpn: tuple[str, ...] = ()
    tls: str = ""
    """``mesh``: the mesh's mutual TLS; ``foreign``: TLS of the client's own; ``mutual``: with a client
    certificate; empty: by the URL, or by ``sni``."""
    http2: bool = False
    silent: bool = False
    udp: str = ""
    explicit: bool = False
    """Through the forward proxy instead of by capture."""
    source: str = ""
    """The client's address at a gateway."""
    upstream: Upstream = Upstream()
    times: int = 0
    only: tuple[str, ...] = HARNESSES
    reason: str = ""


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    calls: tuple[CallSpec, ...]
    config: str = ""
    covers: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    outside: tuple[Outside, ...] = ()
    gateways: tuple[GatewayProxy, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    rollouts: Mapping[str, int] = field(default_factory=dict)
    """By the name of a Rollout: its canary's share of requests now, in percent."""
    findings: tuple[str, ...] | None = None
    """Codes that applying gives, no more and no fewer; ``None``: no errors."""
    only: tuple[str, ...] = HARNESSES
    reason: str = ""
    broken: str = ""
    """Why the file can't be read; empty: it can."""

    @property
    def id(self) -> str:
        return f"{self.path}::{self.name}"


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case of the folder, in order of files."""
    return tuple(case for path in sorted(CASES.rglob("*.yaml")) for case in _read_or_fail(path))


def _read_or_fail(path: Path) -> list[Case]:
    """The cases of a file; of one that can't be read a single case that says so."""
    try:
        return list(read(path))
    except (CaseError, yaml.YAMLError) as error:
        return [Case("(unreadable)", str(path.relative_to(CASES)), (), broken=str(error))]


def cases_for(harness: str) -> tuple[Case, ...]:
    return tuple(c for c in all_cases() if harness in c.only)


def read(path: Path) -> Iterator[Case]:
    documents = yaml.safe_load(path.read_text()) or []
    where = str(path.relative_to(CASES).with_suffix("")) if path.is_relative_to(CASES) else path.stem
    seen: set[str] = set()
    for raw in documents:
        try:
            case = _case(raw, where)
        except (CaseError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise CaseError(f"{path}: {raw.get('name', raw)!r}: {error!r}") from error
        if case.name in seen:
            raise CaseError(f"{path}: two cases are named {case.name!r}")
        seen.add(case.name)
        yield case


def _case(raw: Mapping[str, Any], where: str) -> Case:
    _known(
        raw, "name config covers mesh outside gateways settings rollouts calls findings only reason", "a case"
    )
    config = raw.get("config") or ""
    if isinstance(config, list):
        config = yaml.safe_dump_all(config)
    codes = raw.get("findings")
    return Case(
        name=raw["name"],
        path=where,
        config=config,
        covers=tuple(raw.get("covers", ())),
        members=tuple(_member(name, value) for name, value in (raw.get("mesh") or {}).items()),
        outside=tuple(_outside(name, value) for name, value in (raw.get("outside") or {}).items()),
        gateways=tuple(_build(GatewayProxy, v or {}, name=n) for n, v in (raw.get("gateways") or {}).items()),
        settings=raw.get("settings") or {},
        rollouts=raw.get("rollouts") or {},
        calls=tuple(_call(call, number) for number, call in enumerate(raw.get("calls") or (), 1)),
        findings=None if codes is None else tuple(codes),
        **_only(raw),
    )


def _only(raw: Mapping[str, Any]) -> dict[str, Any]:
    only = tuple(raw.get("only", HARNESSES))
    if not set(only) <= set(HARNESSES):
        raise CaseError(f"only is {only}; harnesses are {HARNESSES}")
    if set(only) != set(HARNESSES) and not raw.get("reason"):
        raise CaseError("only demands a reason")
    return {"only": only, "reason": raw.get("reason", "")}


def _member(name: str, value: Mapping[str, Any] | None) -> Member:
    name, _, namespace = name.partition(".")
    given = dict(value or {})
    if namespace:
        given.setdefault("namespace", namespace)
    return _build(Member, given, name=name)


def _outside(name: str, value: Mapping[str, Any] | str) -> Outside:
    given = {"address": value} if isinstance(value, str) else dict(value)
    return _build(Outside, given, name=name)


def _call(raw: Mapping[str, Any], number: int) -> CallSpec:
    given = dict(raw)
    found: dict[str, Any] = {"number": number, "expect": given.pop("expect", None) or {}}
    found |= _only({k: given.pop(k) for k in ("only", "reason") if k in given})
    for method in METHODS:
        if method in given:
            found |= {"method": method.upper(), "url": given.pop(method)}
    if "grpc" in given:
        headers = {"content-type": "application/grpc", "te": "trailers", **(given.get("headers") or {})}
        found |= {"method": "POST", "url": given.pop("grpc"), "http2": True}
        given["headers"] = headers
    headers = given.pop("headers", None) or {}
    pairs = headers.items() if isinstance(headers, Mapping) else [tuple(p) for p in headers]
    found["headers"] = tuple((str(n), str(v)) for n, v in pairs)
    if "from" in given:
        found["sender"] = given.pop("from")
    if "alpn" in given:
        alpn = given.pop("alpn")
        found["alpn"] = (alpn,) if isinstance(alpn, str) else tuple(alpn)
    if "upstream" in given:
        found["upstream"] = _build(Upstream, given.pop("upstream"))
    found |= given
    if not found.get("url") and not found.get("connect") and not found.get("udp"):
        raise CaseError(f"call {number} says nothing to call: get, post, ..., grpc, connect or udp")
    if not found["expect"]:
        raise CaseError(f"call {number} expects nothing")
    return _build(CallSpec, found)


def _build(made: Any, given: Mapping[str, Any], **more: Any) -> Any:
    names = {f.name for f in fields(made)}
    _known(given, " ".join(names), made.__name__)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return made(**more, **values)


def _known(raw: Mapping[str, Any], names: str, what: str) -> None:
    unknown = set(raw) - set(names.split())
    if unknown:
        raise CaseError(
            f"{what} has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(names.split()))}"
        )
