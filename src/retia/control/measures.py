"""What the callers of a canary counted: asked from their proxies, added up over one step of a rollout.

Only proxies that hold the canary's cluster are asked, over the sessions of their hosts, and only while a
rollout is under way. Proxies count from their start, so two answers of one proxy make a sample, and what was
counted before a step does not matter. A proxy that is away makes the evidence incomplete: the rollout waits.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from retia.control.core import Core
from retia.control.session import AgentSession, Unavailable
from retia.model.resource import Name, TypeUrl
from retia.policy.rollout import CANARY
from retia.policy.rollout.sample import Bin, Sample
from retia.xds.wire import ABSENT_VERSION

ASK_S = 3.0
"""How long one proxy is waited for; it is asked again twice a second."""
AT_ONCE = 8
"""Proxies that are asked at the same time. Arbitrary: bounds the load on hosts with many callers."""

GRPC_FAILURES = frozenset({2, 4, 12, 13, 14, 15})
"""UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the statuses that
OpenTelemetry's conventions count as a server's errors."""

Counted = Mapping[str, Sample]
"""By proxy, since its start."""


@dataclass(slots=True)
class Meter:
    """The counting of one rollout's current step.

    A proxy's counting begins with its second answer: Envoy brings its histograms up to date after it has
    answered, so the first one lacks the newest times.
    """

    epoch: int = 0
    met: set[str] = field(default_factory=set)
    """Proxies that have answered once."""
    began: dict[str, Sample] = field(default_factory=dict)
    """What each proxy had counted when its counting began."""
    last: dict[str, Sample] = field(default_factory=dict)
    done: Sample = field(default_factory=Sample)
    """Counted by proxies that have since started anew."""

    def begin(self, epoch: int) -> None:
        """A step begins: nothing counts yet."""
        self.epoch = epoch
        self.met, self.began, self.last, self.done = set(), {}, {}, Sample()

    def take(self, counted: Counted) -> None:
        """New answers."""
        for proxy, now in counted.items():
            before = self.last.get(proxy)
            if proxy not in self.met:
                self.met.add(proxy)
                continue
            if before is None:
                self.began[proxy] = now
            elif now.requests < before.requests:
                self.done = self.done.plus(before.since(self.began[proxy]))
                self.began[proxy] = Sample()
            self.last[proxy] = now

    @property
    def sample(self) -> Sample:
        """What was counted in this step so far."""
        total = self.done
        for proxy, now in self.last.items():
            total = total.plus(now.since(self.began[proxy]))
        return total


@dataclass(frozen=True, slots=True)
class Answers:
    """What the proxies that can call a canary have counted."""

    counted: Counted
    silent: tuple[str, ...] = ()
    """Proxies that gave no answer."""
    away: tuple[str, ...] = ()
    """Hosts that could not be asked."""

    @property
    def missing(self) -> str:
        """Why something is missing; empty: nothing is."""
        if self.away:
            return f"host {_and_more(self.away)} is away"
        return f"proxy {_and_more(self.silent)} does not answer" if self.silent else ""


def _and_more(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (with {len(names) - 1} more)"


async def ask(core: Core, host: str, ports: Iterable[int]) -> Answers:
    """Ask the proxies that can call a canary."""
    names = [Name(TypeUrl.CLUSTER, f"outbound|{port}|{CANARY}|{host}") for port in ports]
    callers = [
        (session, proxy)
        for session in list(core.sessions.values())
        for proxy, feed in session.feeds.items()
        if any(feed.told.get(name, ABSENT_VERSION) != ABSENT_VERSION for name in names)
    ]
    away = sorted(h.id for h in core.registry.hosts.values() if h.proxies and h.id not in core.sessions)
    gate = asyncio.Semaphore(AT_ONCE)
    answers = await asyncio.gather(*(_ask_one(gate, session, proxy, host) for session, proxy in callers))
    counted = {proxy: found for (_, proxy), found in zip(callers, answers, strict=True) if found is not None}
    silent = tuple(p for (_, p), found in zip(callers, answers, strict=True) if found is None)
    return Answers(counted, silent, tuple(away))


async def _ask_one(gate: asyncio.Semaphore, session: AgentSession, proxy: str, host: str) -> Sample | None:
    async with gate:
        try:
            async with asyncio.timeout(ASK_S):
                reply = await session.query(proxy, stats_path(host))
        except (TimeoutError, Unavailable):
            return None
    return sample_of(reply.body, host) if reply.status == 200 else None


def stats_path(host: str) -> str:
    """The question to a proxy's admin interface."""
    cluster = rf"^cluster\.outbound\|[0-9]+\|{re.escape(CANARY)}\|{re.escape(host)}"
    wanted = rf"{cluster}\.(upstream_rq_([1-5]xx|time)|grpc\.[0-9]+)$"
    # The agent lets few characters pass; quote() leaves ~ as it is.
    pattern = quote(wanted, safe="").replace("~", "%7E")
    return f"/stats?format=json&histogram_buckets=detailed&filter={pattern}"


def sample_of(body: bytes, host: str) -> Sample | None:
    """What a proxy has counted since its start; ``None``: the answer makes no sense."""
    try:
        stats = json.loads(body)["stats"]
    except (ValueError, KeyError, TypeError):
        return None
    total = Sample()
    for stat in stats:
        if "histograms" in stat:
            for each in stat["histograms"].get("details", ()):
                if host in each.get("name", ""):
                    total = total.plus(Sample(bins=_bins(each.get("totals") or ())))
            continue
        name, value = str(stat.get("name", "")), int(stat.get("value") or 0)
        last = name.rpartition(".")[2]
        if last.startswith("upstream_rq_"):
            failed = value if last == "upstream_rq_5xx" else 0
            total = total.plus(Sample(value, failed))
        elif last.isdigit() and int(last) in GRPC_FAILURES:
            total = total.plus(Sample(0, value))
    return total


def _bins(totals: Iterable[Mapping[str, Any]]) -> tuple[Bin, ...]:
    """Envoy gives times in milliseconds."""
    return tuple(Bin(float(t["lower_bound"]), float(t["width"]), int(t["count"])) for t in totals)
