"""A path for people, line by line, and for programs, as plain data."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from retia.explain.forms import (
    Chain,
    Destination,
    Effect,
    Listener,
    NetworkFilter,
    Path,
    Rule,
    Step,
    Tls,
    Unknown,
    VirtualHost,
)


def data(value: Any) -> Any:
    """Plain dictionaries and lists; every step says its ``kind``; empty fields are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: data(getattr(value, f.name)) for f in fields(value)}
        kept = {k: v for k, v in found.items() if v not in (None, "", [], {})}
        return {"kind": _kind(value), **kept} if isinstance(value, Step) else kept
    if isinstance(value, tuple):
        return [data(item) for item in value]
    return value


def lines(path: Path, indent: str = "") -> list[str]:
    """What happens, in order, one thing a line."""
    found = [f"{indent}{line}" for step in path.steps for line in _step(step)]
    found += [f"{indent}{line}" for line in _policies(path)]
    if path.answer is not None:
        answer = path.answer
        location = f", location {answer.location}" if answer.location else ""
        found.append(f"{indent}answer {answer.status}{location}: {answer.why}")
    if path.refused:
        found.append(f"{indent}refused: {path.refused}")
    for destination in path.destinations:
        found += [f"{indent}{line}" for line in _destination(destination)]
        if destination.next is not None:
            found += lines(destination.next, indent + "  ")
    for share, other in path.alternatives:
        found.append(f"{indent}for {share:.4g} of such requests instead:")
        found += lines(other, indent + "  ")
    return found


def _kind(step: Any) -> str:
    name = type(step).__name__
    return "".join(f"-{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _step(step: Step) -> list[str]:
    match step:
        case Listener():
            return [f"listener {step.name} at {step.address}: {step.why}"]
        case Chain():
            tls = ", ends TLS" if step.tls else ""
            certificate = ", demands a certificate" if step.requires_certificate else ""
            trusts = f" of {', '.join(step.trusts)}" if step.trusts else ""
            return [f"filter chain {step.name or '(without a name)'}{tls}{certificate}{trusts}: {step.why}"]
        case NetworkFilter():
            return [f"network filter {step.name}: {step.says}"]
        case VirtualHost():
            return [f"virtual host {step.name}, domain {step.domain}: {step.why}"]
        case Rule():
            return _rule(step)
        case Effect():
            return [f"filter {step.name} (set by the {step.origin}): {step.config}"]
        case Unknown():
            return [f"not interpreted here: {step.where}: {step.what}"]


def _rule(rule: Rule) -> list[str]:
    where = f" of {rule.object} {rule.field}".rstrip() if rule.object else ""
    found = [f"route {rule.index} {rule.name}{where}: {rule.why}"]
    for lost in rule.lost:
        origin = f" of {lost.object} {lost.field}".rstrip() if lost.object else ""
        verb = "also matches" if lost.matches else "not"
        found.append(f"  {verb}: route {lost.index} {lost.name}{origin}: {lost.why}")
    return found


def _policies(path: Path) -> list[str]:
    found = []
    if path.fault is not None:
        if path.fault.delay_s is not None:
            found.append(f"fault: {path.fault.delay_share:.4g} are delayed by {path.fault.delay_s:g} s")
        if path.fault.abort_share:
            code = path.fault.status if path.fault.status is not None else f"gRPC {path.fault.grpc_status}"
            found.append(f"fault: {path.fault.abort_share:.4g} are answered {code}")
    if path.timeout_s is not None and path.destinations:
        found.append(f"timeout: {path.timeout_s:g} s" if path.timeout_s else "timeout: none")
    if path.retry is not None:
        each = f", each within {path.retry.per_try_timeout_s:g} s" if path.retry.per_try_timeout_s else ""
        found.append(f"retries: {path.retry.attempts} on {path.retry.on}{each}")
    found += [f"mirror: {m.share:.4g} to {m.cluster}" for m in path.mirrors]
    if path.hashed_by:
        found.append(f"endpoint chosen by {', then '.join(path.hashed_by)}")
    return found


def _destination(found: Destination) -> list[str]:
    if not found.exists:
        return [f"{found.share:.4g} to cluster {found.cluster}: there is none, answer {found.missing_status}"]
    request = f", as {found.method} {found.host}{found.path}" if found.method else ""
    lines_ = [f"{found.share:.4g} to cluster {found.cluster} ({found.kind}, {found.balancing}){request}"]
    for name, value in found.limits:
        lines_.append(f"  limit {name} {value}")
    for effect in found.effects:
        lines_.append(f"  filter {effect.name} (set by the {effect.origin}): {effect.config}")
    for endpoint in found.endpoints:
        where = f" in {endpoint.locality}" if endpoint.locality else ""
        weight = f", weight {endpoint.weight}" if endpoint.weight != 1 else ""
        priority = f", priority {endpoint.priority}" if endpoint.priority else ""
        health = f", {endpoint.health}" if endpoint.health else ""
        lines_.append(f"  endpoint {endpoint.address}{where}{weight}{priority}{health}{_tls(endpoint.tls)}")
    return lines_


def _tls(tls: Tls | None) -> str:
    if tls is None:
        return ", in plaintext"
    mutual = "mutual TLS" if tls.certificate else "TLS"
    alpn = f" {', '.join(tls.alpn)}" if tls.alpn else ""
    names = f", accepts {', '.join(tls.names)}" if tls.names else ""
    return f", {mutual} to {tls.server_name or '(no server name)'}{alpn}{names}"
