"""RedisRoute: which commands go where, for the clients of one service.

The oldest object for a service counts; the others are reported. A command whose key no route has goes to the
service that was called.
"""

from __future__ import annotations

from typing import Any

from retia.config.codes import Code, finding
from retia.model.mesh import Protocol
from retia.model.objects import ConfigObject
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.indexes import objects
from retia.policy.registry import service
from retia.policy.routing.forms import Mirror, RedisKeys, RedisRules, Target, TcpRules
from retia.policy.routing.read import share
from retia.policy.routing.resolve import Reader


def redis_rules(view: View, key: tuple[str, int]) -> TcpRules | None:
    """What holds for commands to ``(host, port)``; ``None``: nothing reads them."""
    host, port = key
    found = [obj for obj in objects(view, "redis-host", host) if _is_for(view, obj, host, port)]
    if not found:
        return None
    obj, *others = found
    reader = Reader(view, obj, host, port)
    keys = [_keys(reader, route, index) for index, route in enumerate(obj.spec.routes)]
    if not any(each.prefix == "" for each in keys):
        keys.append(RedisKeys("", False, Target(reader.host, port)))  # type: ignore[arg-type]
    rules = RedisRules(
        tuple(sorted(keys, key=lambda each: each.prefix)),
        case_insensitive=obj.spec.case_insensitive,
        timeout_s=float(obj.spec.timeout),
    )
    hidden = tuple(
        finding(
            Code.HOST_CONFLICT,
            f"commands to {host}:{port} are already read by {obj.ref}, which is older and holds alone",
            ref=other.ref,
            field="spec.host",
        )
        for other in others
    )
    return TcpRules((), (Provenance(obj.ref, "spec.routes"),), (*reader.findings, *hidden), redis=rules)


def _is_for(view: View, obj: ConfigObject, host: str, port: int) -> bool:
    if obj.spec.port is not None:
        return bool(obj.spec.port == port)
    known = service(view, host)
    found = known.port(port) if known is not None else None
    return found is not None and found.protocol is Protocol.TCP


def _keys(reader: Reader, route: Any, index: int) -> RedisKeys:
    field = f"spec.routes[{index}]"
    mirrors = [
        Mirror(
            reader.target(mirror.destination, f"{field}.mirrors[{number}].destination"),
            share(mirror.percentage),
            exclude_reads=mirror.exclude_reads,
        )
        for number, mirror in enumerate(route.mirrors)
    ]
    reads = route.read_from
    return RedisKeys(
        route.prefix,
        route.remove_prefix,
        reader.target(route.destination, f"{field}.destination"),
        reader.target(reads, f"{field}.readFrom") if reads is not None else None,
        tuple(mirror for mirror in mirrors if mirror.share),
    )
