"""What the kinds of the Gateway API share: exact types of fields, references, label selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from retia.config import names
from retia.config.codes import Code
from retia.config.duration import Duration
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.types import LabelMap, Port, Text, duplicates

GROUP = "gateway.networking.k8s.io"

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")


def pattern(expression: str, rule: str, *, most: int = 253, least: int = 1) -> AfterValidator:
    """All of a text must match; ``rule`` says in words what it must be."""
    compiled = re.compile(expression, re.ASCII)

    def check(text: str) -> str:
        if not least <= len(text) <= most:
            raise ValueError(f"must have {least} to {most} characters")
        if text and not compiled.fullmatch(text):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def at_least_one(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """For lists that must not be empty."""
    if not value:
        raise ValueError("must have at least one item")
    return value


NotEmpty = AfterValidator(at_least_one)

Hostname = Annotated[
    str,
    Strict(),
    pattern(
        rf"(\*\.)?{_SUBDOMAIN}", "must be a host name in lower case, with no port, possibly *. before it"
    ),
]
PreciseHostname = Annotated[
    str, Strict(), pattern(_SUBDOMAIN, "must be a host name in lower case, with no port and no wildcard")
]
Group = Annotated[
    str, Strict(), pattern(_SUBDOMAIN, "must be an API group such as gateway.networking.k8s.io", least=0)
]
KindName = Annotated[
    str, Strict(), pattern(r"[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?", "must be a kind such as Service", most=63)
]
ObjectName = Annotated[str, Strict(), Field(min_length=1, max_length=253)]
Namespace = Annotated[
    str, Strict(), pattern(_LABEL, "must be a namespace: a DNS label in lower case", most=63)
]
SectionName = Annotated[
    str, Strict(), pattern(_SUBDOMAIN, "must be a name in lower case: letters, digits, - and .")
]
ControllerName = Annotated[
    str,
    Strict(),
    pattern(
        rf"{_SUBDOMAIN}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+",
        "must be a domain and a path, such as retia.dev/gateway-controller",
    ),
]
HeaderName = Annotated[
    str, Strict(), pattern(r"[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+", "must be a header's name", most=256)
]
_QUALIFIED = (
    rf"({_SUBDOMAIN}/)?([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]",
    "must be a name, possibly with a domain and / before it",
)
AnnotationKey = Annotated[str, Strict(), pattern(*_QUALIFIED)]
AnnotationValue = Annotated[str, Strict(), Field(max_length=4096)]
LabelKey = AnnotationKey
LabelValue = Annotated[
    str,
    Strict(),
    pattern(
        r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
        "must be a label's value: letters, digits, - _ and .",
        most=63,
        least=0,
    ),
]
Options = FrozenMap[AnnotationKey, AnnotationValue]
Weight = Annotated[int, Strict(), Field(ge=0, le=1_000_000)]


def _written_duration(value: Any) -> Any:
    if isinstance(value, str) and not _DURATION.fullmatch(value):
        raise ValueError("must be a duration such as 10s, 1m30s or 500ms")
    return value


GatewayDuration = Annotated[Duration, BeforeValidator(_written_duration)]
"""GEP-2257: up to four of ``h``, ``m``, ``s``, ``ms``, whole numbers each. 0s mostly means "never"."""


class ParentReference(Model):
    """What a route attaches to: a Gateway or ListenerSet (group as here), or a Service (group ``""``)."""

    group: Group = GROUP
    kind: KindName = "Gateway"
    namespace: Namespace | None = None
    """Absent: the route's own."""
    name: ObjectName
    section_name: SectionName | None = None
    """A listener's name, of a Service a port's name; absent: all."""
    port: Port | None = None
    """Only listeners (ports of the Service) of that number; absent: all."""


def parent_problems(parents: tuple[ParentReference, ...]) -> Iterator[Problem]:
    """Two references to one parent must differ in section or port, and both must say one."""
    if len(parents) > 32:
        yield Problem(("parentRefs",), "has more than 32 items", Code.BAD_VALUE)
    seen: dict[tuple[Any, ...], ParentReference] = {}
    full = [(p.group, p.kind, p.namespace or "", p.name, p.section_name or "", p.port or 0) for p in parents]
    for index, _ in duplicates(full):
        yield Problem(("parentRefs", index), "is there already; name another sectionName or port")
    for index, parent in enumerate(parents):
        key = (parent.group, parent.kind, parent.namespace or "", parent.name)
        other = seen.setdefault(key, parent)
        if other is not parent and bool(other.section_name) != bool(parent.section_name):
            yield Problem(
                ("parentRefs", index),
                "names the same parent as another item: both or neither must have a sectionName",
            )


class GatewayDefaultScope(StrEnum):
    ALL = "All"
    NONE = "None"


class BackendObjectReference(Model):
    """A backend: a ``Service`` (group ``""``), or Istio's ``Hostname`` (group ``networking.istio.io``)."""

    group: Group = ""
    kind: KindName = "Service"
    name: ObjectName
    namespace: Namespace | None = None
    """Absent: the object's own; another one needs a ReferenceGrant there."""
    port: Port | None = None

    def problems(self) -> Iterator[Problem]:
        if self.group == "" and self.kind == "Service" and self.port is None:
            yield Problem(("port",), "is missing; a Service needs one", Code.MISSING_FIELD)


class BackendRef(BackendObjectReference):
    weight: Weight = 1
    """This backend's share of all weights of the rule; 0: nothing."""


class LocalObjectReference(Model):
    group: Group
    kind: KindName
    name: ObjectName


class ObjectReference(LocalObjectReference):
    namespace: Namespace | None = None


class SecretObjectReference(Model):
    group: Group = ""
    kind: KindName = "Secret"
    name: ObjectName
    namespace: Namespace | None = None


class LocalPolicyTarget(LocalObjectReference):
    """What a policy is for: an object of its own namespace, or one part (a Service's port by name)."""

    section_name: SectionName | None = None


class SelectorOperator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelExpression(Model):
    key: Text
    operator: SelectorOperator
    values: tuple[Text, ...] = ()

    def problems(self) -> Iterator[Problem]:
        needs = self.operator in (SelectorOperator.IN, SelectorOperator.NOT_IN)
        if needs and not self.values:
            yield Problem(("values",), f"is empty; {self.operator} needs values", Code.MISSING_FIELD)
        if not needs and self.values:
            yield Problem(("values",), f"must be empty for {self.operator}")

    def holds(self, labels: dict[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case SelectorOperator.IN:
                return value is not None and value in self.values
            case SelectorOperator.NOT_IN:
                return value is None or value not in self.values
            case SelectorOperator.EXISTS:
                return value is not None
            case _:
                return value is None


class LabelSelector(Model):
    """Kubernetes' selector: all of it must hold; an empty one selects everything."""

    match_labels: LabelMap = ()
    match_expressions: tuple[LabelExpression, ...] = ()

    def selects(self, labels: dict[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels) and all(
            each.holds(labels) for each in self.match_expressions
        )


class SessionPersistenceType(StrEnum):
    COOKIE = "Cookie"
    HEADER = "Header"


class CookieLifetime(StrEnum):
    SESSION = "Session"
    PERMANENT = "Permanent"


class CookieConfig(Model):
    name: HeaderName | None = None
    """Absent: a name of ours."""
    path: Annotated[str, Strict(), Field(max_length=1024)] = "/"
    lifetime_type: CookieLifetime = CookieLifetime.SESSION


class HeaderConfig(Model):
    name: HeaderName


class SessionPersistence(Model):
    """Requests of one session go to one endpoint, which a cookie or a header names."""

    absolute_timeout: GatewayDuration | None = None
    """After so long the session ends; absent: with the browser's session."""
    type: SessionPersistenceType = SessionPersistenceType.COOKIE
    cookie: CookieConfig | None = None
    header: HeaderConfig | None = None

    def problems(self) -> Iterator[Problem]:
        cookie = self.type is SessionPersistenceType.COOKIE
        if cookie and self.header is not None:
            yield Problem(("header",), "must not be given where type is Cookie")
        if not cookie and self.cookie is not None:
            yield Problem(("cookie",), "must not be given where type is Header")
        if not cookie and self.header is None:
            yield Problem(("header",), "is missing; type Header needs it", Code.MISSING_FIELD)
        if (
            self.cookie is not None
            and self.cookie.lifetime_type is CookieLifetime.PERMANENT
            and self.absolute_timeout is None
        ):
            yield Problem(("absoluteTimeout",), "is missing; a Permanent cookie needs it", Code.MISSING_FIELD)


def count_problems(field: str, items: tuple[Any, ...], most: int, least: int = 0) -> Iterator[Problem]:
    """A list's bounds."""
    if len(items) > most:
        yield Problem((field,), f"has {len(items)} items; at most {most} are allowed", Code.BAD_VALUE)
    if len(items) < least:
        yield Problem((field,), f"must have at least {least}", Code.BAD_VALUE)


def named_once(field: str, items: tuple[Any, ...], fold: Callable[[str], str] = str) -> Iterator[Problem]:
    """Items of a list that is a map by ``name``."""
    for index, name in duplicates(fold(each.name) for each in items):
        yield Problem((field, index, "name"), f"is {name}, which is there already")


def is_ip(text: str) -> bool:
    return names.is_ip(text)
