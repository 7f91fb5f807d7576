"""HTTP: from the ``Host`` header to a route, and what the route does."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import Any

from retia.explain.calls import Call, Request
from retia.explain.clusters import find_cluster
from retia.explain.forms import (
    Answer,
    Destination,
    Edits,
    Effect,
    Fault,
    Lost,
    Mirror,
    Path,
    Retry,
    Rule,
    Step,
    Unknown,
    VirtualHost,
)
from retia.explain.match import CannotSayError, best_domain, regex_replace, text_matches, why_not
from retia.explain.resources import Lookup, seconds, share, type_of, unpack, words
from retia.model.resource import Name, TypeUrl

ROUTER = "envoy.extensions.filters.http.router.v3.Router"
ON_DEMAND = "envoy.extensions.filters.http.on_demand.v3.OnDemand"
_FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
_GRPC_STATS = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"
_BUFFER = "envoy.extensions.filters.http.buffer.v3.Buffer"
_SILENT = frozenset({ROUTER, ON_DEMAND, _GRPC_STATS})
_WRAPPER = "envoy.config.route.v3.FilterConfig"
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_REDIRECTS = (301, 302, 303, 307, 308)
_ROUTE_TIMEOUT_S = 15.0
"""Envoy's own, where a route says nothing."""
MAX_BODY_SHOWN = 4096
METADATA = "retia"
"""The key of a route's metadata under which it says which object it comes from."""


def through_manager(lookup: Lookup, manager: Any, call: Call, tls: bool) -> Path:
    """What a connection manager does with the call's request."""
    request = _normalized(manager, call.request)
    if request is None:
        return Path((), refused="the first bytes are no HTTP; the proxy answers 400 and closes")
    call = replace(call, request=request)
    steps: list[Step] = []
    kind = manager.WhichOneof("route_specifier")
    if kind == "rds":
        config = lookup(Name(TypeUrl.ROUTE, manager.rds.route_config_name))
        if config is None:
            text = f"no route configuration {manager.rds.route_config_name} is there"
            return Path(tuple(steps), answer=Answer(404, text))
    elif kind == "route_config":
        config = manager.route_config
    else:
        return Path((Unknown("connection manager", f"routes by {kind}"),))
    host, why = _find_host(lookup, manager, config, request)
    if host is None:
        return Path(tuple(steps), answer=Answer(404, why))
    domain = host.domains[best_domain(list(host.domains), _bare(config, request.host))[0]]
    steps.append(VirtualHost(config.name, host.name, domain, why))
    if host.require_tls and request.scheme != "https":
        location = f"https://{request.host}{request.path}"
        return Path(tuple(steps), answer=Answer(301, "the virtual host demands TLS", location=location))
    return _Routing(lookup, manager, config, host, call, tls).run(steps)


def _normalized(manager: Any, request: Request | None) -> Request | None:
    """Path segments of dots are resolved and slashes merged, where the manager is to do it."""
    if request is None or request.method == "CONNECT":
        return request
    path, mark, query = request.path.partition("?")
    if manager.normalize_path.value and ("/." in path or "%2e" in path.lower()):
        path = path.replace("%2e", ".").replace("%2E", ".")
        end = "/" if path.endswith(("/", "/.", "/..")) else ""
        path = posixpath.normpath(path).replace("//", "/")
        path = path if path.endswith("/") else path + end
    if manager.merge_slashes:
        while "//" in path:
            path = path.replace("//", "/")
    return replace(request, path=path + mark + query)


def _bare(config: Any, host: str) -> str:
    if not config.ignore_port_in_host_matching:
        return host.lower()
    head, colon, port = host.rpartition(":")
    return (head if colon and port.isdigit() else host).lower()


def _find_host(lookup: Lookup, manager: Any, config: Any, request: Request) -> tuple[Any, str]:
    host = _bare(config, request.host)
    domains = [(d, v) for v in config.virtual_hosts for d in v.domains]
    place, why = best_domain([d for d, _ in domains], host)
    if place >= 0:
        return domains[place][1], why
    if not config.HasField("vhds"):
        return None, f"no virtual host of {config.name} is for the host {request.host}"
    del manager
    name = f"{config.name}/{request.host.lower()}"
    found = lookup(Name(TypeUrl.VIRTUAL_HOST, name))
    if found is None:
        return None, f"the mesh knows no host {request.host} (asked for as {name})"
    place, why = best_domain(list(found.domains), host)
    if place < 0:
        return None, f"the virtual host {found.name} does not have the domain {host}"
    return found, f"asked for when a request names it, as {name}; {why}"


class _Routing:
    """The way of one request through one virtual host."""

    def __init__(self, lookup: Lookup, manager: Any, config: Any, host: Any, call: Call, tls: bool) -> None:
        assert call.request is not None
        self.lookup = lookup
        self.manager = manager
        self.config = config
        self.host = host
        self.call = call
        self.request = call.request
        self.tls = tls

    def run(self, steps: list[Step]) -> Path:
        if self.host.HasField("matcher"):
            return Path((*steps, Unknown(f"virtual host {self.host.name}", "a matcher tree of routes")))
        missed: list[Lost] = []
        unclear: list[Step] = []
        taken: list[tuple[float, int, Any]] = []
        left = 1.0
        for index, route in enumerate(self.host.routes):
            try:
                reason = why_not(route.match, self.request.lookup, tls=self.tls)
            except CannotSayError as error:
                unclear.append(Unknown(f"route {index} {route.name}", str(error)))
                continue
            if reason:
                missed.append(_lost(index, route, reason))
                continue
            part = share(route.match.runtime_fraction.default_value) if _by_chance(route) else 1.0
            if left > 0:
                if part > 0:
                    taken.append((left * part, index, route))
                else:
                    missed.append(_lost(index, route, "it takes no share of requests"))
                left *= 1 - part
            else:
                missed.append(_lost(index, route, "an earlier route takes the request", matches=True))
        if not taken:
            text = "no route matches: " + "; ".join(f"{m.name}: {m.why}" for m in missed[:5])
            return Path((*steps, *unclear), answer=Answer(404, text))
        paths = [
            (part, self._path(route, (*steps, *unclear, _rule(index, route, part, tuple(missed)))))
            for part, index, route in taken
        ]
        first = paths[0][1]
        rest = [*paths[1:]]
        if left > 0:
            rest.append((left, Path((*steps, *unclear), answer=Answer(404, "no route is left for the rest"))))
        return replace(first, alternatives=tuple(rest)) if rest else first

    # -- one route -----------------------------------------------------------------------------------------

    def _path(self, route: Any, steps: tuple[Step, ...]) -> Path:
        effects, fault, limit, odd = self._effects(route)
        steps = (*steps, *effects, *odd)
        found = Path(steps, fault=fault)
        preflight = self._preflight(route, effects)
        if preflight is not None:
            return replace(found, answer=preflight)
        if self.request.body_bytes > limit >= 0:
            text = f"the body has {self.request.body_bytes} bytes; {limit} are allowed"
            return replace(found, answer=Answer(413, text))
        if fault is not None and fault.abort_share >= 1 and fault.status is not None:
            return replace(found, answer=Answer(fault.status, "the rule aborts every request"))
        kind = route.WhichOneof("action")
        if kind == "direct_response":
            body = route.direct_response.body
            text = body.inline_string or body.inline_bytes.decode(errors="replace")[:MAX_BODY_SHOWN]
            headers = self._edits(route, None)[1]
            added = tuple(headers.applied({}).items())
            return replace(
                found, answer=Answer(route.direct_response.status, "the rule answers", text, headers=added)
            )
        if kind == "redirect":
            return replace(found, answer=self._redirect(route))
        if kind != "route":
            return replace(found, steps=(*steps, Unknown(f"route {route.name}", f"the action {kind}")))
        return self._forward(route, found)

    def _forward(self, route: Any, found: Path) -> Path:
        action = route.route
        shares, unclear = self._clusters(action)
        if unclear:
            return replace(found, steps=(*found.steps, Unknown(f"route {route.name}", unclear)))
        destinations: list[Destination] = []
        steps = list(found.steps)
        for weighted, name, part in shares:
            cluster = find_cluster(self.lookup, name, part, self.call)
            steps += cluster.unknown
            destinations.append(self._sent(route, weighted, cluster.destination))
        status = {0: 503, 1: 404, 2: 500}[action.cluster_not_found_response_code]
        destinations = [d if d.exists else replace(d, missing_status=status) for d in destinations]
        missing = [d.cluster for d in destinations if not d.exists]
        if destinations and len(missing) == len(destinations):
            text = f"there is no cluster {', '.join(missing)}"
            return replace(found, steps=tuple(steps), answer=Answer(status, text))
        if not any(d.endpoints for d in destinations):
            text = f"{', '.join(d.cluster for d in destinations)} has no endpoints"
            if all(d.kind in ("EDS", "STATIC") for d in destinations):
                return replace(found, steps=tuple(steps), answer=Answer(503, text))
        return replace(
            found,
            steps=tuple(steps),
            destinations=tuple(destinations),
            timeout_s=self._timeout(action),
            idle_timeout_s=seconds(action.idle_timeout) if action.HasField("idle_timeout") else None,
            retry=self._retry(action),
            mirrors=self._mirrors(action),
            hashed_by=tuple(_hash_words(p) for p in action.hash_policy),
        )

    def _timeout(self, action: Any) -> float:
        """A route with ``max_stream_duration`` is not held to its ``timeout``."""
        if not action.HasField("max_stream_duration"):
            return seconds(action.timeout) if action.HasField("timeout") else _ROUTE_TIMEOUT_S
        longest = action.max_stream_duration
        headers = self.request.lookup
        deadline = _grpc_timeout(headers.get("grpc-timeout", ""))
        if deadline and longest.HasField("grpc_timeout_header_max"):
            most = seconds(longest.grpc_timeout_header_max)
            return min(deadline, most) if most else deadline
        return seconds(longest.max_stream_duration)

    def _clusters(self, action: Any) -> tuple[list[tuple[Any, str, float]], str]:
        """Weighted entry (or none), cluster and share; or why that can't be said."""
        kind = action.WhichOneof("cluster_specifier")
        if kind == "cluster":
            return [(None, action.cluster, 1.0)], ""
        if kind == "cluster_header":
            name = self.request.lookup.get(action.cluster_header.lower(), "")
            return [(None, name, 1.0)], ""
        if kind == "weighted_clusters":
            entries = [e for e in action.weighted_clusters.clusters if e.weight.value]
            total = sum(e.weight.value for e in entries)
            if any(e.cluster_header for e in entries):
                return [], "clusters that a header names, by weight"
            return [(e, e.name, e.weight.value / total) for e in entries], "" if total else "no weight at all"
        return [], f"the cluster is chosen by {kind}"

    def _sent(self, route: Any, weighted: Any, destination: Destination) -> Destination:
        request, response = self._edits(route, weighted)
        path = self._rewritten_path(route)
        host = self._host(route, weighted, destination)
        headers = request.applied(dict(self.request.lookup))
        host = next(
            (value for name, value in (*request.set, *request.add) if name in ("host", ":authority")), host
        )
        effects: tuple[Effect, ...] = ()
        if weighted is not None:
            effects = tuple(
                Effect(name, "weighted cluster", words(unpack(packed)))
                for name, packed in sorted(weighted.typed_per_filter_config.items())
            )
        own = tuple((n, v) for n, v in headers.items() if not n.startswith(":") and n != "host")
        return replace(
            destination,
            method=self.request.method,
            host=host,
            path=path,
            headers=own,
            request_edits=request,
            response_edits=response,
            effects=effects,
        )

    def _host(self, route: Any, weighted: Any, destination: Destination) -> str:
        action = route.route
        kind = action.WhichOneof("host_rewrite_specifier")
        if kind == "host_rewrite_literal":
            return str(action.host_rewrite_literal)
        if kind == "host_rewrite_header":
            return self.request.lookup.get(action.host_rewrite_header.lower(), self.request.host)
        if kind == "auto_host_rewrite" and action.auto_host_rewrite.value:
            return next((e.address.rpartition(":")[0] for e in destination.endpoints), self.request.host)
        if kind == "host_rewrite_path_regex":
            rewrite = action.host_rewrite_path_regex
            path = self.request.path.partition("?")[0]
            return regex_replace(rewrite.pattern.regex, rewrite.substitution, path)
        if weighted is not None and weighted.host_rewrite_literal:
            return str(weighted.host_rewrite_literal)
        return self.request.host

    def _rewritten_path(self, route: Any) -> str:
        action = route.route
        if action.prefix_rewrite:
            return _with_prefix(route.match, self.request.path, action.prefix_rewrite)
        if action.HasField("regex_rewrite"):
            path, mark, query = self.request.path.partition("?")
            rewrite = action.regex_rewrite
            return regex_replace(rewrite.pattern.regex, rewrite.substitution, path) + mark + query
        return self.request.path

    def _edits(self, route: Any, weighted: Any) -> tuple[Edits, Edits]:
        """Of the request and of the response; the most specific first, unless the configuration turns it."""
        levels = [level for level in (weighted, route, self.host, self.config) if level is not None]
        if self.config.most_specific_header_mutations_wins:
            levels.reverse()
        request, response = Edits(), Edits()
        for level in levels:
            request = request.then(_edits(level.request_headers_to_remove, level.request_headers_to_add))
            response = response.then(_edits(level.response_headers_to_remove, level.response_headers_to_add))
        return request, response

    def _retry(self, action: Any) -> Retry | None:
        policy = action.retry_policy if action.HasField("retry_policy") else None
        if policy is None and self.host.HasField("retry_policy"):
            policy = self.host.retry_policy
        if policy is None or not policy.retry_on:
            return None
        back_off = policy.retry_back_off
        return Retry(
            on=policy.retry_on,
            attempts=policy.num_retries.value if policy.HasField("num_retries") else 1,
            statuses=tuple(policy.retriable_status_codes),
            per_try_timeout_s=seconds(policy.per_try_timeout) if policy.HasField("per_try_timeout") else None,
            other_hosts=any(p.name.endswith("previous_hosts") for p in policy.retry_host_predicate),
            backoff_s=seconds(back_off.base_interval) if policy.HasField("retry_back_off") else None,
        )

    def _mirrors(self, action: Any) -> tuple[Mirror, ...]:
        policies = action.request_mirror_policies or self.host.request_mirror_policies
        found = []
        for policy in policies:
            part = 1.0
            if policy.HasField("runtime_fraction"):
                part = share(policy.runtime_fraction.default_value)
            cluster = policy.cluster or self.request.lookup.get(policy.cluster_header.lower(), "")
            if part > 0:
                found.append(Mirror(cluster, part))
        return tuple(found)

    def _redirect(self, route: Any) -> Answer:
        redirect = route.redirect
        scheme = redirect.scheme_redirect or ("https" if redirect.https_redirect else self.request.scheme)
        host = redirect.host_redirect or self._redirect_host(scheme, redirect.port_redirect)
        port = f":{redirect.port_redirect}" if redirect.port_redirect else ""
        path, mark, query = self.request.path.partition("?")
        kind = redirect.WhichOneof("path_rewrite_specifier")
        if kind == "path_redirect":
            given, own_mark, own_query = redirect.path_redirect.partition("?")
            path = given
            if own_mark:
                mark, query = own_mark, own_query
        elif kind == "prefix_rewrite":
            path = _with_prefix(route.match, path, redirect.prefix_rewrite)
        elif kind == "regex_rewrite":
            rewrite = redirect.regex_rewrite
            path = regex_replace(rewrite.pattern.regex, rewrite.substitution, path)
        if redirect.strip_query and not (kind == "path_redirect" and "?" in redirect.path_redirect):
            mark = query = ""
        location = f"{scheme}://{host}{port}{path}{mark}{query}"
        headers = self._edits(route, None)[1]
        return Answer(
            _REDIRECTS[redirect.response_code],
            "the rule redirects",
            location=location,
            headers=tuple(headers.applied({}).items()),
        )

    def _redirect_host(self, scheme: str, port: int) -> str:
        head, colon, given = self.request.host.rpartition(":")
        if not colon or not given.isdigit():
            return self.request.host
        default = {"http": "80", "https": "443"}.get(self.request.scheme)
        if port or (scheme != self.request.scheme and given == default):
            return head
        return self.request.host

    # -- filters -------------------------------------------------------------------------------------------

    def _effects(self, route: Any) -> tuple[list[Effect], Fault | None, int, list[Unknown]]:
        """The filters that do something to this request, in the order of the chain; the fault; the longest
        body (-1: of any length); and what can't be read."""
        limit = -1
        found: list[Effect] = []
        odd: list[Unknown] = []
        fault: Fault | None = None
        levels = (("route", route), ("virtual host", self.host), ("route configuration", self.config))
        for each in self.manager.http_filters:
            kind = type_of(each.typed_config)
            if kind in _SILENT:
                continue
            origin, packed = next(
                (
                    (said, level.typed_per_filter_config[each.name])
                    for said, level in levels
                    if each.name in level.typed_per_filter_config
                ),
                ("chain", each.typed_config),
            )
            disabled = each.disabled and origin == "chain"
            if type_of(packed) == _WRAPPER:
                wrapper = unpack(packed)
                disabled = wrapper.disabled
                packed = wrapper.config if wrapper.HasField("config") else each.typed_config
            if disabled:
                continue
            message = unpack(packed)
            if message is None:
                odd.append(
                    Unknown(f"filter {each.name}", f"its configuration {type_of(packed)} is not readable")
                )
                continue
            if kind == _FAULT:
                fault = self._fault(message) or fault
                if origin == "chain" and not message.ListFields():
                    continue
            elif origin == "chain" and kind == type_of(packed) and not message.ListFields():
                continue
            if kind == _BUFFER:
                limit = _body_limit(message)
            found.append(Effect(each.name, origin, words(message)))
        return found, fault, limit, odd

    def _fault(self, message: Any) -> Fault | None:
        if not message.HasField("delay") and not message.HasField("abort"):
            return None
        found = Fault()
        if message.HasField("delay") and message.delay.HasField("fixed_delay"):
            found = replace(
                found,
                delay_s=seconds(message.delay.fixed_delay),
                delay_share=share(message.delay.percentage),
            )
        if message.HasField("abort"):
            grpc = message.abort.WhichOneof("error_type") == "grpc_status"
            found = replace(
                found,
                status=None if grpc else message.abort.http_status,
                grpc_status=message.abort.grpc_status if grpc else None,
                abort_share=share(message.abort.percentage),
            )
        return found

    def _preflight(self, route: Any, effects: list[Effect]) -> Answer | None:
        """A CORS preflight that the policy allows is answered by the proxy."""
        headers = self.request.lookup
        if self.request.method != "OPTIONS" or "origin" not in headers:
            return None
        if "access-control-request-method" not in headers:
            return None
        policy = self._cors(route, effects)
        if policy is None or not any(
            text_matches(m, headers["origin"]) for m in policy.allow_origin_string_match
        ):
            return None
        pairs = [("access-control-allow-origin", headers["origin"])]
        for name, value in (
            ("allow-methods", policy.allow_methods),
            ("allow-headers", policy.allow_headers),
            ("max-age", policy.max_age),
        ):
            if value:
                pairs.append((f"access-control-{name}", value))
        if policy.allow_credentials.value:
            pairs.append(("access-control-allow-credentials", "true"))
        return Answer(200, "the CORS policy answers this preflight request", headers=tuple(pairs))

    def _cors(self, route: Any, effects: list[Effect]) -> Any:
        """The CORS policy that holds for a route, if any."""
        for effect in effects:
            for level in (route, self.host, self.config):
                if effect.name in level.typed_per_filter_config:
                    message = unpack(level.typed_per_filter_config[effect.name])
                    if hasattr(message, "allow_origin_string_match"):
                        return message
        return None


# -- small parts -------------------------------------------------------------------------------------------


def _by_chance(route: Any) -> bool:
    return bool(route.match.HasField("runtime_fraction"))


def _origin(route: Any) -> tuple[str, str]:
    if METADATA not in route.metadata.filter_metadata:
        return "", ""
    fields = route.metadata.filter_metadata[METADATA].fields
    return fields["object"].string_value, fields["field"].string_value


def _rule(index: int, route: Any, part: float, lost: tuple[Lost, ...]) -> Rule:
    ref, field = _origin(route)
    why = (
        "the first that matches" if part >= 1 else f"the first that matches, for {part:.4g} of such requests"
    )
    return Rule(index, route.name, ref, field, why, lost)


def _lost(index: int, route: Any, why: str, *, matches: bool = False) -> Lost:
    ref, field = _origin(route)
    return Lost(index, route.name, ref, field, why, matches)


def _with_prefix(match: Any, path: str, prefix: str) -> str:
    """The path with what the route matched replaced."""
    kind = match.WhichOneof("path_specifier")
    bare, mark, query = path.partition("?")
    if kind in ("path", "safe_regex"):
        return prefix + mark + query if kind == "path" else path
    matched = getattr(match, kind) if kind in ("prefix", "path_separated_prefix") else ""
    return prefix + bare[len(matched) :] + mark + query


def _edits(remove: Any, add: Any) -> Edits:
    """Envoy's actions: 0 append or add, 1 add if absent, 2 overwrite or add, 3 overwrite if there."""
    set_: list[tuple[str, str]] = []
    added: list[tuple[str, str]] = []
    for option in add:
        value = option.header.value or option.header.raw_value.decode(errors="replace")
        pair = (option.header.key.lower(), value.replace("%%", "%"))
        appended = option.append.value if option.HasField("append") else option.append_action == 0
        (added if appended else set_).append(pair)
    return Edits(tuple(n.lower() for n in remove), tuple(set_), tuple(added))


def _body_limit(message: Any) -> int:
    """Of a buffer filter, or of its configuration on a route; -1: none."""
    if "disabled" in message.DESCRIPTOR.fields_by_name:
        return -1 if message.disabled else int(message.buffer.max_request_bytes.value)
    return int(message.max_request_bytes.value)


def _grpc_timeout(text: str) -> float:
    """The header ``grpc-timeout`` in seconds; 0: none."""
    factor = _GRPC_UNITS.get(text[-1:], 0.0)
    return int(text[:-1]) * factor if factor and text[:-1].isdigit() and len(text) < 10 else 0.0


def _hash_words(policy: Any) -> str:
    kind = policy.WhichOneof("policy_specifier")
    if kind == "header":
        return f"the header {policy.header.header_name}"
    if kind == "cookie":
        made = ", made where it is absent" if policy.cookie.HasField("ttl") else ""
        return f"the cookie {policy.cookie.name}{made}"
    if kind == "query_parameter":
        return f"the query parameter {policy.query_parameter.name}"
    if kind == "connection_properties":
        return "the client's address"
    return str(kind)
