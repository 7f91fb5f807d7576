"""VirtualService rules for connections: opaque TCP, and TLS that is passed on unopened.

TLS rules come first, because they ask for more; then the TCP rules. Where all conditions but the server name
are known, they are decided here: the port, the dialled address, who calls. The objects for one host are
joined by age, a rule for every connection behind the narrower ones, as with HTTP.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.objects import ConfigObject
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.routing.choose import SIDECAR, Scope, holds_for, virtual_services
from retia.policy.routing.forms import TcpRule, TcpRules, WeightedTarget
from retia.policy.routing.resolve import Reader, is_for_me

MAX_SNIS = 5000
"""Server names of all TLS rules for one host. Arbitrary."""


def tcp_rules(view: View, key: tuple[str, int, str]) -> TcpRules | None:
    """The rules for connections to ``(host, port, dialled address)`` at a sidecar; ``None``: there are none.

    The address is empty where nobody dialled one.
    """
    # Imported here: it reads into the forms of this package.
    from retia.policy.gateway_api import mesh as gateway_api
    from retia.policy.routing.redis import redis_rules

    host, port, ip = key
    commands = redis_rules(view, (host, port))
    if commands is not None:
        return commands
    found = virtual_services(view, host, "tls", "tcp")
    rules = tcp_rules_of(view, found, host, port, ip=ip) if found else None
    if rules is not None and (rules.rules or rules.findings):
        return rules
    return gateway_api.tcp_rules(view, (host, port))


def tcp_rules_of(
    view: View,
    objects: Iterable[ConfigObject],
    host: str,
    port: int,
    *,
    gateways: frozenset[str] = SIDECAR.gateways,
    ip: str = "",
) -> TcpRules:
    """The TLS and TCP rules of VirtualServices for one host and port, joined, as this proxy gets them.

    See :func:`retia.policy.routing.resolve.rules_of`. ``ip`` is the address that was dialled; empty: any.
    """
    scope = Scope(gateways)
    by_name: list[TcpRule] = []
    rest: list[TcpRule] = []
    findings: list[Finding] = []
    provenance: list[Provenance] = []
    for obj in sorted(objects, key=lambda each: each.order):
        if not holds_for(view, obj, scope):
            continue
        reader = Reader(view, obj, host, port, scope)
        named = [rule for index, tls in enumerate(obj.spec.tls) for rule in _tls(reader, tls, index, ip)]
        by_name += named
        own = [rule for index, tcp in enumerate(obj.spec.tcp) for rule in _tcp(reader, tcp, index, ip)]
        if own and rest:
            findings.append(_hidden(host, own[0], rest[0]))
        rest += own
        if not named and not own:
            provenance.append(Provenance(obj.ref, "spec.tcp" if obj.spec.tcp else "spec.tls"))
        findings.extend(reader.findings)
    rules = (*_each_name_once(host, by_name, findings), *rest[:1])
    shaped = (Provenance(rule.ref, rule.field) for rule in rules if rule.ref is not None)
    return TcpRules(rules, tuple(dict.fromkeys((*shaped, *provenance))), tuple(dict.fromkeys(findings)))


def _tls(reader: Reader, rule: Any, index: int, ip: str) -> list[TcpRule]:
    field = f"spec.tls[{index}]"
    snis: dict[str, None] = {}
    for block in rule.match:
        if _is_mine(reader, block, ip):
            snis.update(dict.fromkeys(each.lower() for each in block.sni_hosts))
    return [TcpRule(field, _targets(reader, rule, field), tuple(snis), reader.ref)] if snis else []


def _tcp(reader: Reader, rule: Any, index: int, ip: str) -> list[TcpRule]:
    field = f"spec.tcp[{index}]"
    if rule.match and not any(_is_mine(reader, block, ip) for block in rule.match):
        return []
    return [TcpRule(field, _targets(reader, rule, field), (), reader.ref)]


def _is_mine(reader: Reader, block: Any, ip: str) -> bool:
    if not is_for_me(reader.view, reader.scope, reader.ref, block, reader.port):
        return False
    return (
        not block.destination_subnets or not ip or any(_within(ip, net) for net in block.destination_subnets)
    )


def _within(ip: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(ip) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _targets(reader: Reader, rule: Any, field: str) -> tuple[WeightedTarget, ...]:
    found = [
        WeightedTarget(
            reader.target(each.destination, f"{field}.route[{index}].destination"), each.weight or 1
        )
        for index, each in enumerate(rule.route)
        if each.weight or len(rule.route) == 1
    ]
    return tuple(found)


def _each_name_once(host: str, rules: list[TcpRule], findings: list[Finding]) -> tuple[TcpRule, ...]:
    """The rules with each server name only where it is first: two filter chains can't match one name."""
    owners: dict[str, TcpRule] = {}
    kept: list[TcpRule] = []
    for rule in rules:
        if len(owners) + len(rule.snis) > MAX_SNIS:
            message = f"there are more than {MAX_SNIS} server names for {host}; this rule has no effect"
            findings.append(finding(Code.LIMIT, message, ref=rule.ref, field=rule.field))
            continue
        mine = tuple(sni for sni in rule.snis if sni not in owners)
        taken = next((owners[sni] for sni in rule.snis if sni in owners), None)
        if taken is not None and taken.ref != rule.ref:
            findings.append(_hidden(host, rule, taken))
        owners.update(dict.fromkeys(mine, rule))
        if mine:
            kept.append(TcpRule(rule.field, rule.targets, mine, rule.ref))
    return tuple(kept)


def _hidden(host: str, rule: TcpRule, older: TcpRule) -> Finding:
    return finding(
        Code.HOST_CONFLICT,
        f"is for {host} too, where {older.field} of {older.ref} is older and takes the same connections",
        ref=rule.ref,
        field=rule.field,
        remedy="write the rules for one host into one VirtualService",
    )
