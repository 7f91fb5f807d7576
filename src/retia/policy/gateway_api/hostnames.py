"""Host names: which names two patterns share, and which pattern is the more specific."""

from __future__ import annotations

from collections.abc import Iterable

from retia.config.names import host_covers

ANY = "*"


def specificity(host: str) -> tuple[int, int]:
    """Greater is more specific: characters that are no wildcard (0 for a wildcard), then all of them."""
    if host.startswith("*"):
        return (0, len(host))
    return (len(host), len(host))


def shared(listener: str | None, hosts: Iterable[str]) -> tuple[str, ...]:
    """The names that a listener and a route have in common; ``*`` where neither says any."""
    wanted = tuple(hosts)
    if not wanted:
        return (listener or ANY,)
    if not listener:
        return tuple(dict.fromkeys(wanted))
    found = []
    for host in wanted:
        if host_covers(listener, host):
            found.append(host)
        elif host_covers(host, listener):
            found.append(listener)
    return tuple(dict.fromkeys(found))


def covers(wide: str, narrow: str) -> bool:
    return wide == ANY or host_covers(wide, narrow)


def overlap(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether some name is in both."""
    others = tuple(other)
    return any(covers(a, b) or covers(b, a) for a in one for b in others)


def owner(host: str, patterns: Iterable[str]) -> str | None:
    """The most specific pattern that covers a host."""
    fitting = [each for each in patterns if covers(each, host)]
    return max(fitting, key=specificity, default=None)
