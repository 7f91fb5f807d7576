"""``TrafficLane``: some requests stay on chosen versions of every service on their way."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, Strict

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Problem
from retia.config.schema.types import HostName, LabelMap, StringMatch, Text

MAX_MATCHES = 32
"""Each is a route before every rule of the entry; arbitrary."""


class ClientBaggage(StrEnum):
    """What becomes of a lane that a client of the gateway names by itself."""

    STRIP = "Strip"
    """It is taken off."""
    ACCEPT = "Accept"
    """It is believed: anybody who can call the gateway can enter the lane."""


class LaneUser(Model):
    """Who is calling, as a header says that something before the entry has verified."""

    header: Text = ""
    claim: Text = ""
    """A claim of a verified token."""
    values: tuple[Text, ...] = ()
    """Any of these."""

    def problems(self) -> Iterator[Problem]:
        if not self.header and not self.claim:
            yield Problem((), "must have one of header, claim", Code.MISSING_FIELD)
        if self.header and self.claim:
            yield Problem(("claim",), "must not stand beside header")
        if not self.values or not all(self.values):
            yield Problem(("values",), "must name at least one user, and none that is empty")


class LaneMatch(Model):
    """All of it must hold. Empty: every request."""

    headers: FrozenMap[Text, StringMatch] = ()
    cookies: FrozenMap[Text, StringMatch] = ()
    user: LaneUser | None = None
    percentage: Annotated[float, Strict(), Field(gt=0, le=100)] | None = None
    """A random share of the requests that match otherwise, in percent; absent: all of them."""


class LaneEntry(Model):
    """Where requests are given their lane."""

    service: HostName
    """The proxies of those who call this service; absent entry: gateways."""


def _name(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


class TrafficLane(Model):
    """The lane's name is the object's."""

    match: tuple[LaneMatch, ...] = ()
    """Any of these enters the lane; empty: only requests that carry it in their baggage already."""
    entry: LaneEntry | None = None
    versions: FrozenMap[Annotated[Text, AfterValidator(_name)], LabelMap] = ()
    """By service: the labels of the lane's instances, for services with none labelled
    ``retia.dev/lane: <lane>``."""
    client_baggage: ClientBaggage = ClientBaggage.STRIP

    def problems(self) -> Iterator[Problem]:
        if len(self.match) > MAX_MATCHES:
            message = f"has {len(self.match)} entries; at most {MAX_MATCHES} are allowed"
            yield Problem(("match",), message, Code.BAD_VALUE)
        for service, labels in self.versions:
            if not labels:
                yield Problem(("versions", service), "must name at least one label", Code.MISSING_FIELD)
