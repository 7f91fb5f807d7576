"""How requests are spread over endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from retia.config.codes import Code
from retia.config.schema.base import FrozenMap, Model, Path, Problem, one_of
from retia.config.schema.types import (
    Flag,
    Number,
    Percentage,
    PositiveDuration,
    Text,
    UInt32,
    UInt64,
    ZeroOrDuration,
    duplicates,
)

_MAX_TABLE = 5_000_011
"""Envoy's limit for a Maglev table."""
_TOPOLOGY = frozenset(
    {"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"}
)


class SimpleLB(StrEnum):
    UNSPECIFIED = "UNSPECIFIED"
    LEAST_CONN = "LEAST_CONN"
    """The old name of LEAST_REQUEST."""
    RANDOM = "RANDOM"
    PASSTHROUGH = "PASSTHROUGH"
    ROUND_ROBIN = "ROUND_ROBIN"
    LEAST_REQUEST = "LEAST_REQUEST"


class RingHash(Model):
    minimum_ring_size: UInt64 = 0
    """0: 1024."""


class MagLev(Model):
    table_size: UInt64 = 0
    """A prime; Envoy's own default is 65537."""

    def problems(self) -> Iterator[Problem]:
        if self.table_size == 0:
            yield Problem(("tableSize",), "is missing", Code.MISSING_FIELD)
        elif self.table_size >= _MAX_TABLE or not _is_prime(self.table_size):
            message = f"is {self.table_size}; it must be a prime below {_MAX_TABLE}"
            yield Problem(("tableSize",), message, Code.BAD_VALUE)


class CookieAttribute(Model):
    name: Text
    value: Text = ""


class HTTPCookie(Model):
    """Hash on a cookie, which is made where the client has none and ``ttl`` is given."""

    name: Text
    path: Text = ""
    ttl: ZeroOrDuration | None = None
    """0s: a session cookie."""
    attributes: tuple[CookieAttribute, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if not self.name:
            yield Problem(("name",), "is empty; it must have at least one character", Code.BAD_VALUE)
        for index, name in duplicates(attribute.name for attribute in self.attributes):
            yield Problem(("attributes", index, "name"), f"is {name}, which is there already")
        for index, attribute in enumerate(self.attributes):
            if not attribute.name:
                message = "is empty; it must have at least one character"
                yield Problem(("attributes", index, "name"), message, Code.BAD_VALUE)


class ConsistentHashLB(Model):
    """The same key goes to the same endpoint."""

    http_header_name: Text | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: Flag | None = None
    http_query_parameter_name: Text | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: UInt64 = 0
    """The old place of ``ringHash.minimumRingSize``. 0: 1024."""

    def problems(self) -> Iterator[Problem]:
        keys = ("http_header_name", "http_cookie", "use_source_ip", "http_query_parameter_name")
        yield from one_of(self, *keys, required=True)
        yield from one_of(self, "ring_hash", "maglev")
        if self.minimum_ring_size and (self.ring_hash or self.maglev):
            yield Problem(("minimumRingSize",), "must not stand beside ringHash or maglev")


class Distribute(Model):
    """From a locality, to others by share."""

    from_: Text = ""
    to: FrozenMap[Text, UInt32] = ()


class Failover(Model):
    """Where to go when a region has no healthy endpoint."""

    from_: Text = ""
    to: Text = ""


class LocalityLoadBalancerSetting(Model):
    """Spreading by locality."""

    distribute: tuple[Distribute, ...] = ()
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[Text, ...] = ()
    enabled: Flag | None = None

    def problems(self) -> Iterator[Problem]:
        if self.distribute and self.failover:
            yield Problem(("failover",), "must not stand beside distribute")
        if self.failover:
            yield from _topology_labels(self.failover_priority, "must not stand beside failover")
        yield from _distribute_problems(self.distribute)
        yield from _failover_problems(self.failover)


class ZoneAwareLoadBalancerSetting(Model):
    """Spreading by zone, done by Envoy."""

    enabled: Flag | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[Text, ...] = ()
    min_cluster_size: UInt64 | None = None

    def problems(self) -> Iterator[Problem]:
        rule = "is a topology label, which zoneAwareLbSetting orders by itself"
        yield from _topology_labels(self.failover_priority, rule)
        yield from _failover_problems(self.failover)
        if self.min_cluster_size == 0:
            yield Problem(("minClusterSize",), "is 0; it must be 1 or more", Code.BAD_VALUE)


class WarmupConfiguration(Model):
    """New endpoints get their share of traffic little by little."""

    duration: PositiveDuration
    minimum_percent: Percentage | None = None
    aggression: Number | None = None

    def problems(self) -> Iterator[Problem]:
        if self.aggression is not None and self.aggression <= 0:
            yield Problem(("aggression",), f"is {self.aggression:g}; it must be more than 0", Code.BAD_VALUE)


class LoadBalancerSettings(Model):
    """``simple`` or ``consistentHash``; neither: least request."""

    simple: SimpleLB | None = None
    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    zone_aware_lb_setting: ZoneAwareLoadBalancerSetting | None = None
    warmup_duration_secs: PositiveDuration | None = None
    warmup: WarmupConfiguration | None = None

    def problems(self) -> Iterator[Problem]:
        yield from one_of(self, "simple", "consistent_hash")
        yield from one_of(self, "locality_lb_setting", "zone_aware_lb_setting")
        yield from one_of(self, "warmup_duration_secs", "warmup")


def _is_prime(number: int) -> bool:
    if number < 4:
        return number > 0  # Envoy takes 1 for a prime.
    return number % 2 == 1 and all(number % factor for factor in range(3, int(number**0.5) + 1, 2))


def _topology_labels(labels: tuple[str, ...], rule: str) -> Iterator[Problem]:
    for index, label in enumerate(labels):
        if label in _TOPOLOGY:
            yield Problem(("failoverPriority", index), f"{rule} ({label})")


def _distribute_problems(items: tuple[Distribute, ...]) -> Iterator[Problem]:
    yield from _locality_problems([(("distribute", i, "from"), item.from_) for i, item in enumerate(items)])
    for index, item in enumerate(items):
        path: Path = ("distribute", index, "to")
        for locality, weight in item.to:
            if not 1 <= weight <= 100:
                yield Problem((*path, locality), f"is {weight}; it must be 1 to 100", Code.BAD_VALUE)
        total = sum(weight for _, weight in item.to)
        if total != 100:
            yield Problem(path, f"has weights whose sum is {total}; it must be 100", Code.BAD_VALUE)
        yield from _locality_problems([((*path, locality), locality) for locality, _ in item.to])


def _failover_problems(items: tuple[Failover, ...]) -> Iterator[Problem]:
    for index, item in enumerate(items):
        if item.from_ == item.to:
            yield Problem(("failover", index, "to"), f"is {item.to}, as from is; it must be another region")
        for field, region in (("from", item.from_), ("to", item.to)):
            if "/" in region or "*" in region:
                message = f"is {region}; it must be a region, with no zone and no *"
                yield Problem(("failover", index, field), message, Code.BAD_VALUE)


def _locality_problems(localities: list[tuple[Path, str]]) -> Iterator[Problem]:
    seen: list[str] = []
    for path, locality in localities:
        parts = locality.split("/", 2)
        if (
            not all(parts)
            or "*" in locality[:-1]
            or (locality != "*" and locality.endswith("*") and parts[-1] != "*")
        ):
            message = f"is {locality!r}; it must be region/zone/subzone or a start of it, or end in /*"
            yield Problem(path, message, Code.BAD_VALUE)
            continue
        for earlier in seen:
            if _localities_overlap(earlier, locality):
                yield Problem(path, f"is {locality}, which overlaps with {earlier}")
        seen.append(locality)


def _localities_overlap(one: str, other: str) -> bool:
    pairs = list(zip(one.split("/", 2), other.split("/", 2), strict=False))
    return all(a == b or "*" in (a, b) for a, b in pairs)
