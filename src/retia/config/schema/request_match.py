"""Which requests a policy of Retia's own means: Gateway API's match, and who calls."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import AfterValidator

from retia.config import re2
from retia.config.codes import Code
from retia.config.schema.base import Model, Problem
from retia.config.schema.types import DnsLabel, MatchedHeader, Network, Text


def length(least: int, most: int) -> AfterValidator:
    """The rule of a list's length. Asked after its items are right, unlike ``Field(min_length=...)``, which
    counts those only."""

    def validate(items: tuple[Any, ...]) -> tuple[Any, ...]:
        if not least <= len(items) <= most:
            raise ValueError(f"must have {least} to {most} items")
        return items

    return AfterValidator(validate)


class PathMatchType(StrEnum):
    EXACT = "Exact"
    PATH_PREFIX = "PathPrefix"
    """By whole segments: ``/a`` is a prefix of ``/a/b`` and not of ``/ab``."""
    REGULAR_EXPRESSION = "RegularExpression"
    """RE2, for the whole path."""


class ValueMatchType(StrEnum):
    EXACT = "Exact"
    PREFIX = "Prefix"
    REGULAR_EXPRESSION = "RegularExpression"
    PRESENT = "Present"


class PathMatch(Model):
    """The path, without the query."""

    type: PathMatchType = PathMatchType.PATH_PREFIX
    value: Text = "/"

    def problems(self) -> Iterator[Problem]:
        if self.type is PathMatchType.REGULAR_EXPRESSION:
            yield from _pattern("value", self.value)
        elif not self.value.startswith("/"):
            yield Problem(("value",), f"is {self.value!r}; it must begin with /", Code.BAD_VALUE)


class HeaderMatch(Model):
    """One header."""

    type: ValueMatchType = ValueMatchType.EXACT
    name: MatchedHeader
    value: Text = ""

    def problems(self) -> Iterator[Problem]:
        if self.type is ValueMatchType.REGULAR_EXPRESSION:
            yield from _pattern("value", self.value)
        if self.type is ValueMatchType.PRESENT and self.value:
            yield Problem(("value",), "must not be given with type Present")


class SourceMatch(Model):
    """Who calls, as its certificate says. One of the values of each field that is given."""

    identities: tuple[Text, ...] = ()
    """SPIFFE ids: ``spiffe://cluster.local/ns/default/sa/web``."""
    namespaces: tuple[DnsLabel, ...] = ()
    service_accounts: tuple[Text, ...] = ()
    """``NAMESPACE/NAME``, or a name of the policy's namespace."""

    def problems(self) -> Iterator[Problem]:
        for index, identity in enumerate(self.identities):
            if not identity.startswith("spiffe://"):
                message = f"is {identity!r}; it must begin with spiffe://"
                yield Problem(("identities", index), message, Code.BAD_VALUE)
        if not (self.identities or self.namespaces or self.service_accounts):
            message = "must have one of identities, namespaces, serviceAccounts"
            yield Problem((), message, Code.MISSING_FIELD)


class RequestCondition(Model):
    """Conditions that must all hold."""

    method: Text = ""
    """Empty: any."""
    path: PathMatch | None = None
    headers: tuple[HeaderMatch, ...] = ()
    source: SourceMatch | None = None
    remote_addresses: tuple[Network, ...] = ()
    """IPv4 networks or addresses, one of which the caller has. Empty: any."""

    def problems(self) -> Iterator[Problem]:
        if self.method and not (self.method.isascii() and self.method.isalpha() and self.method.isupper()):
            yield Problem(("method",), f"is {self.method!r}; methods are capital letters", Code.BAD_VALUE)
        for index, network in enumerate(self.remote_addresses):
            if ipaddress.ip_network(network, strict=False).version == 6:
                yield Problem(
                    ("remoteAddresses", index),
                    f"is {network}; IPv6 is not supported here",
                    Code.UNSUPPORTED_FIELD,
                )
        if not (self.method or self.path or self.headers or self.source or self.remote_addresses):
            message = "must have at least one condition; leave the list out to mean every request"
            yield Problem((), message, Code.MISSING_FIELD)


def _pattern(field: str, text: str) -> Iterator[Problem]:
    try:
        re2.check(text)
    except re2.PatternError as error:
        message = f"is {text!r}; it must be a regular expression of RE2's syntax: {error}"
        yield Problem((field,), message, Code.BAD_VALUE)
