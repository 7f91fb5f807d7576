"""A VirtualService's HTTP rules for one host and port, as one client gets them.

Rules keep their order and the first that matches counts. Of a rule's matches, those that name another port,
other sources or other gateways than this client's fall away here; a rule that loses all of its matches so
is gone. A rule that can't be read costs itself only: it answers 500, so that what stands below it doesn't
take its requests, and is a finding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.ids import gateway_name, qualify
from retia.model.mesh import labels_match, labels_of
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.registry import mesh, service
from retia.policy.routing import read
from retia.policy.routing.choose import SIDECAR, Scope, holds_for, virtual_services
from retia.policy.routing.forms import (
    Answer,
    HttpRule,
    HttpRules,
    Mirror,
    RequestMatch,
    Retry,
    Target,
    WeightedTarget,
)
from retia.policy.routing.merge import in_order, merge
from retia.policy.traffic import traffic_policy
from retia.policy.traffic.resolve import missing_subset
from retia.policy.visibility import visible

DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled"
"""Istio's default since 1.24: only what can't have reached the application."""


def default_retry(view: View) -> Retry | None:
    """What holds where no rule says anything about retries."""
    settings = mesh(view)
    if settings.default_retries <= 0:
        return None
    more = settings.retry
    conditions, codes = read.retry_conditions(more.on or DEFAULT_RETRY_ON)
    return Retry(
        settings.default_retries,
        conditions,
        codes,
        more.per_try_timeout_s,
        more.backoff_s,
        more.other_hosts,
        more.remote_localities,
    )


def http_rules(view: View, key: tuple[str, int]) -> HttpRules | None:
    """The rules for ``(host, port)`` at a sidecar; ``None``: no object says anything about them.

    VirtualServices hold before routes of the Gateway API, which then say nothing.
    """
    # Imported here: it reads into the forms of this package.
    from retia.policy.gateway_api import mesh as gateway_api

    host, port = key
    found = virtual_services(view, host, "http")
    rules = rules_of(view, found, host, port) if found else None
    if rules is not None and rules.rules:
        return rules
    return gateway_api.http_rules(view, key) or rules


def rules_of(
    view: View,
    objects: Iterable[ConfigObject],
    host: str,
    port: int,
    *,
    gateways: frozenset[str] = SIDECAR.gateways,
    tls: bool = False,
) -> HttpRules:
    """The HTTP rules of VirtualServices for one host and port, joined, as this proxy gets them.

    ``gateways`` are the names (``namespace/name``, or ``mesh``) that the proxy goes by; objects bound to none
    of them, or not exported to it, are passed over. ``port`` is what clients call; ``tls``: by HTTPS.
    """
    scope = Scope(gateways, tls)
    findings: list[Finding] = []
    provenance: list[Provenance] = []
    parts: list[tuple[HttpRule, ...]] = []
    for obj in sorted(objects, key=lambda each: each.order):
        if not holds_for(view, obj, scope):
            continue
        reader = Reader(view, obj, host, port, scope)
        part = tuple(rule for index, http in enumerate(obj.spec.http) for rule in reader.rules(http, index))
        if obj.spec.http and not part:
            provenance.append(Provenance(obj.ref, "spec.http"))
        provenance.extend(reader.provenance)
        findings.extend(reader.findings)
        parts.append(part)
    rules = merge(host, parts, findings)
    shaped = (Provenance(rule.ref, rule.field) for rule in rules if rule.ref is not None)
    return HttpRules(rules, tuple(dict.fromkeys((*shaped, *provenance))), tuple(dict.fromkeys(findings)))


def is_for_me(view: View, scope: Scope, ref: ObjectRef, block: Any, port: int) -> bool:
    """Whether a match block is for this proxy and port; all that it says must hold.

    (Istio doesn't look at sources where the block names gateways; its reference says that all must hold.)
    """
    if block.gateways:
        named = {gateway_name(each, ref.namespace) for each in block.gateways}
        if named.isdisjoint(scope.gateways):
            return False
    if block.port and block.port != port:
        return False
    if block.source_namespace and block.source_namespace != view.proxy("namespace"):
        return False
    wanted = labels_of(block.source_labels or ())
    return not wanted or labels_match(wanted, view.proxy("labels"))


class Reader:
    """Reads the rules of one object for one client, host and port."""

    def __init__(self, view: View, obj: ConfigObject, host: str, port: int, scope: Scope = SIDECAR) -> None:
        self.view = view
        self.obj = obj
        self.ref = obj.ref
        self.host = host
        self.port = port
        self.scope = scope
        self.findings: list[Finding] = []
        self.provenance: list[Provenance] = []

    def rules(self, http: Any, index: int) -> list[HttpRule]:
        """The rule, or the rules of the object that it delegates to; none where it isn't for this client."""
        field = f"spec.http[{index}]"
        matches = self._matches(http.match)
        if matches is None:
            return []
        if http.delegate is not None:
            return self._delegated(http, field, matches)
        return [in_order(self._rule(http, field, matches))]

    def _rule(self, http: Any, field: str, matches: tuple[RequestMatch, ...]) -> HttpRule:
        try:
            return self._read_rule(http, field, matches)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.findings.append(
                finding(
                    Code.UNSUPPORTED_FIELD,
                    f"the rule can't be translated ({error}); requests that match it get 500",
                    ref=self.ref,
                    field=field,
                )
            )
            return HttpRule(field, matches, answer=Answer(500), ref=self.ref)

    def _read_rule(self, http: Any, field: str, matches: tuple[RequestMatch, ...]) -> HttpRule:
        request, response = self._edits(http.headers, field)
        redirect = (
            read.redirect(http.redirect, self.port, tls=self.scope.tls) if http.redirect is not None else None
        )
        answer = read.answer(http.direct_response) if http.direct_response is not None else None
        targets = () if redirect or answer else self._targets(http.route, field)
        return HttpRule(
            field=field,
            matches=matches,
            name=http.name or "",
            targets=targets,
            redirect=redirect,
            answer=answer,
            rewrite=read.rewrite(http.rewrite) if http.rewrite is not None else None,
            timeout_s=float(http.timeout or 0.0),
            retry=self._retry(http.retries),
            fault=self._fault(http.fault, field),
            mirrors=self._mirrors(http, field),
            request=request,
            response=response,
            cors=read.cors(http.cors_policy) if http.cors_policy is not None else None,
            ref=self.ref,
        )

    # -- who and what ------------------------------------------------------------------------------------

    def _matches(self, blocks: Any) -> tuple[RequestMatch, ...] | None:
        """``None``: no block is for this client; empty: every request."""
        if not blocks:
            return ()
        mine = tuple(read.request_match(block) for block in blocks if self._is_for_me(block))
        return mine or None

    def _is_for_me(self, block: Any) -> bool:
        return is_for_me(self.view, self.scope, self.ref, block, self.port)

    # -- where to ----------------------------------------------------------------------------------------

    def _targets(self, routes: Any, field: str) -> tuple[WeightedTarget, ...]:
        found = []
        for index, route in enumerate(routes):
            if len(routes) > 1 and not route.weight:
                continue
            where = f"{field}.route[{index}]"
            request, response = self._edits(route.headers, where)
            target = self.target(route.destination, f"{where}.destination")
            found.append(WeightedTarget(target, route.weight or 1, request, response))
        if not found:
            self._note(Code.ZERO_WEIGHT, "all weights are 0; requests get 503", f"{field}.route")
        return tuple(found)

    def target(self, destination: Any, field: str) -> Target:
        """A destination with its host qualified and its port chosen; what doesn't exist is a finding."""
        host = qualify(destination.host, self.ref.namespace, mesh(self.view).dns_suffix)
        subset = destination.subset or ""
        known = service(self.view, host)
        if destination.port is not None and destination.port.number:
            port = destination.port.number
        elif known is not None and known.port(self.port) is None and len(known.ports) == 1:
            port = known.ports[0].number
        else:
            port = self.port
        self._check(Target(host, port, subset), field)
        return Target(host, port, subset)

    def _check(self, target: Target, field: str) -> None:
        known = service(self.view, target.host)
        if known is None:
            self._note(
                Code.UNKNOWN_HOST, f"no service is named {target.host}; requests sent to it get 503", field
            )
        elif known.port(target.port) is None:
            ports = ", ".join(str(p.number) for p in known.ports) or "none"
            self._note(
                Code.UNKNOWN_PORT,
                f"{target.host} has no port {target.port} (it has {ports}); requests sent to it get 503",
                field,
            )
        elif target.subset:
            key = (target.host, target.port, target.subset)
            if self.view.query(traffic_policy, key) is None:
                self.findings.append(missing_subset(self.ref, field, target.host, target.subset))

    def _mirrors(self, http: Any, field: str) -> tuple[Mirror, ...]:
        found = []
        for index, mirror in enumerate(http.mirror_policies):
            where = f"{field}.mirror" if http.mirror is not None else f"{field}.mirrors[{index}].destination"
            found.append(Mirror(self.target(mirror.destination, where), read.share(mirror.percent)))
        return tuple(mirror for mirror in found if mirror.share)

    # -- how ---------------------------------------------------------------------------------------------

    def _retry(self, retries: Any) -> Retry | None:
        if retries is None:
            return default_retry(self.view)
        return read.retry(retries, DEFAULT_RETRY_ON)

    def _fault(self, fault: Any, field: str) -> Any:
        if fault is None:
            return None
        if fault.delay is not None and fault.delay.exponential_delay is not None:
            self._note(
                Code.UNSUPPORTED_FIELD,
                "Envoy has fixed delays only; none is injected",
                f"{field}.fault.delay",
            )
        if fault.abort is not None and fault.abort.http2_error is not None:
            self._note(
                Code.UNSUPPORTED_FIELD,
                "use httpStatus or grpcStatus; none is injected",
                f"{field}.fault.abort",
            )
        for part, name in ((fault.delay, "delay"), (fault.abort, "abort")):
            if part is not None and not read.fault_share(part):
                self._note(
                    Code.NO_EFFECT_FIELD,
                    "no percentage is given, so no request is affected",
                    f"{field}.fault.{name}",
                )
        return read.fault(fault)

    def _edits(self, headers: Any, field: str) -> tuple[Any, Any]:
        request, response, dropped = read.header_edits(headers)
        for name, part in dropped:
            self._note(
                Code.NO_EFFECT_FIELD,
                f"Envoy doesn't let {name} be changed this way; the header is left as it is",
                f"{field}.headers.{part}",
            )
        return request, response

    def _note(self, code: Code, message: str, field: str) -> None:
        self.findings.append(finding(code, message, ref=self.ref, field=field))

    # -- delegation --------------------------------------------------------------------------------------

    def _delegated(self, http: Any, field: str, matches: tuple[RequestMatch, ...]) -> list[HttpRule]:
        """The rules of the object that this rule delegates to, each narrowed by this rule's matches.

        Delegates don't delegate further (Istio allows one level). What they leave out (timeout, retries, ...)
        is as the rule that delegates says.
        """
        namespace = http.delegate.namespace or self.ref.namespace
        name = f"VirtualService {namespace}/{http.delegate.name}"
        target: ConfigObject | None = self.view.fact(
            "config", "VirtualService", namespace, http.delegate.name
        )
        if target is None or target.spec.hosts:
            wrong = "doesn't exist or names hosts of its own"
        elif not visible(target.spec.export_to, target.ref.namespace, self.ref.namespace):
            wrong = f"is not exported to namespace {self.ref.namespace}"
        else:
            wrong = ""
        if target is None or wrong:
            self._note(Code.UNKNOWN_HOST, f"{name} {wrong}; the rule has no effect", f"{field}.delegate")
            return []
        self.provenance.append(Provenance(self.ref, field))
        inner = Reader(self.view, target, self.host, self.port, self.scope)
        found = []
        for index, rule in enumerate(target.spec.http):
            if rule.delegate is not None:
                continue
            for read_rule in inner.rules(_inheriting(rule, http), index):
                narrowed = read.narrow(matches, read_rule.matches)
                if narrowed is not None:
                    found.append(read.with_matches(read_rule, narrowed))
                else:
                    inner._note(
                        Code.NO_EFFECT_FIELD,
                        f"its matches aren't all within those of {self.ref} {field}; the rule has no effect",
                        read_rule.field,
                    )
        self.provenance.extend(Provenance(target.ref, rule.field) for rule in found)
        self.findings.extend(inner.findings)
        return found


_INHERITED = ("rewrite", "timeout", "retries", "fault", "cors_policy", "headers")
_MIRRORING = ("mirror", "mirrors", "mirror_percent", "mirror_percentage")


def _inheriting(rule: Any, outer: Any) -> Any:
    """A delegate's rule with what it leaves out taken from the rule that delegates to it."""
    taken = {field: getattr(outer, field) for field in _INHERITED if getattr(rule, field) is None}
    if rule.mirror is None and not rule.mirrors:
        taken |= {field: getattr(outer, field) for field in _MIRRORING}
    taken["name"] = "-".join(name for name in (outer.name, rule.name) if name)
    return rule.model_copy(update=taken)
