"""One rule of the middle form as Envoy routes: one route for each of its matches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2

from retia.config.replies import HEADER, NO_DESTINATION
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.routing.forms import (
    HeaderEdits,
    HttpRule,
    MatchKind,
    NamedMatch,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    Target,
    TextMatch,
)
from retia.policy.traffic import HashKind, HashOn, traffic_policy
from retia.translate import pb
from retia.translate.http_filters import put_route_features

_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_APPEND = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_REDIRECTS = {
    301: route_components_pb2.RedirectAction.MOVED_PERMANENTLY,
    302: route_components_pb2.RedirectAction.FOUND,
    303: route_components_pb2.RedirectAction.SEE_OTHER,
    307: route_components_pb2.RedirectAction.TEMPORARY_REDIRECT,
    308: route_components_pb2.RedirectAction.PERMANENT_REDIRECT,
}
PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
_PREVIOUS_HOSTS = pb.packed(previous_hosts_pb2.PreviousHostsPredicate())
PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"
PRIORITY_UPDATE_FREQUENCY = 2
"""After how many tries the priorities that were used are left out; Istio's number."""
_PREVIOUS_PRIORITIES = pb.packed(
    previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=PRIORITY_UPDATE_FREQUENCY)
)
ORIGIN = "retia"
"""The key of a route's metadata under which the object and field that made it stand."""
HOST_SELECTION_ATTEMPTS = 5
"""How often a retry looks for an endpoint that wasn't tried; Istio's number."""
NO_TARGET_STATUS = 503
MAX_BODY_BYTES = 1024 * 1024
"""The longest direct response, as Istio's; Envoy's default is 4 KiB."""


@dataclass(slots=True)
class Scene:
    """What building the routes of one virtual host needs, and what it finds out."""

    view: View
    cluster_of: Callable[[Target], str]
    clusters: set[str] = field(default_factory=set)
    provenance: list[Provenance] = field(default_factory=list)

    def cluster(self, target: Target) -> str:
        """The name of a target's cluster, noted as one that the virtual host needs."""
        name = self.cluster_of(target)
        self.clusters.add(name)
        return name


def add_rule(virtual_host: Any, scene: Scene, rule: HttpRule, *, default_host: str = "") -> None:
    """Append the rule's routes, one for each match."""
    for match in rule.matches or (RequestMatch(),):
        if any(each.broken and each.weight for each in rule.targets):
            _add_broken(virtual_host, scene, rule, match)
        route = virtual_host.routes.add()
        route.name = _name(rule, match)
        if match.stat_prefix:
            route.stat_prefix = match.stat_prefix
        put_origin(route, rule)
        _put_match(route.match, match)
        _put_edits(route, rule.request, rule.response)
        if rule.answer is not None:
            route.direct_response.status = rule.answer.status
            if rule.answer.code:
                _put_code(route, rule.answer.code)
            if rule.answer.body:
                route.direct_response.body.inline_bytes = rule.answer.body
        elif rule.redirect is not None:
            _put_redirect(route.redirect, rule.redirect)
        elif not rule.targets:
            route.direct_response.status = NO_TARGET_STATUS
            _put_code(route, NO_DESTINATION)
        else:
            _put_route(route, scene, rule, default_host)
        put_route_features(route, scene.view, rule)


def _add_broken(virtual_host: Any, scene: Scene, rule: HttpRule, match: RequestMatch) -> None:
    """The share of requests whose destination does not exist is answered by a route of its own. A cluster
    that does not exist would be asked for, and waited for, by every request."""
    route = virtual_host.routes.add()
    route.name = _name(rule, match)
    put_origin(route, rule)
    _put_match(route.match, match)
    total = sum(each.weight for each in rule.targets)
    part = sum(each.weight for each in rule.targets if each.broken)
    pb.millionths(route.match.runtime_fraction.default_value, round(1_000_000 * part / total))
    _put_edits(route, HeaderEdits(), rule.response)
    route.direct_response.status = rule.broken_status
    _put_code(route, NO_DESTINATION)
    put_route_features(route, scene.view, rule)


def _put_code(route: Any, code: str) -> None:
    """Say why the mesh answers. Envoy takes a direct response for the service's own, so that no mapper of
    local replies sees it."""
    option = route.response_headers_to_add.add()
    option.header.key = HEADER
    option.header.value = code
    option.append_action = _OVERWRITE


def _name(rule: HttpRule, match: RequestMatch) -> str:
    name = rule.name or rule.field or "default"
    return f"{name}.{match.name}" if rule.name and match.name else name


def put_origin(route: Any, rule: HttpRule) -> None:
    """Say in the route's metadata which object and field made it; nothing for a default."""
    if rule.ref is None:
        return
    origin = route.metadata.filter_metadata[ORIGIN].fields
    origin["object"].string_value = str(rule.ref)
    origin["field"].string_value = rule.field


# -- matches -----------------------------------------------------------------------------------------------


def _put_match(target: Any, match: RequestMatch) -> None:
    path = match.path
    if path is None:
        target.prefix = "/"
    elif path.kind is MatchKind.EXACT:
        target.path = path.value
    elif path.kind is MatchKind.PREFIX:
        target.prefix = path.value
    elif path.kind is MatchKind.SEGMENTS:
        target.path_separated_prefix = path.value
    else:
        target.safe_regex.regex = path.value
    if match.ignore_case and path is not None and path.kind is not MatchKind.REGEX:
        target.case_sensitive.value = False
    if match.share:
        pb.millionths(target.runtime_fraction.default_value, match.share)
    for header in match.headers:
        _put_header(target.headers.add(), header)
    for parameter in match.query:
        matcher = target.query_parameters.add()
        matcher.name = parameter.name
        if parameter.match.kind is MatchKind.PRESENT:
            matcher.present_match = True
        else:
            _put_text(matcher.string_match, parameter.match)


def _put_header(matcher: Any, header: NamedMatch) -> None:
    matcher.name = header.name
    if header.match.kind is MatchKind.PRESENT:
        matcher.present_match = True
    else:
        _put_text(matcher.string_match, header.match)
    if header.invert:
        matcher.invert_match = True
        if header.match.kind is not MatchKind.PRESENT:
            matcher.treat_missing_header_as_empty = True


def _put_text(matcher: Any, match: TextMatch) -> None:
    if match.kind is MatchKind.EXACT:
        matcher.exact = match.value
    elif match.kind is MatchKind.PREFIX:
        matcher.prefix = match.value
    else:
        matcher.safe_regex.regex = match.value


# -- actions -----------------------------------------------------------------------------------------------


def _put_route(route: Any, scene: Scene, rule: HttpRule, default_host: str) -> None:
    action = route.route
    hashes = _hashes(scene, rule)
    host = (rule.rewrite.authority if rule.rewrite is not None else "") or rule.request.host
    if len(rule.targets) == 1:
        only = rule.targets[0]
        action.cluster = scene.cluster(only.target)
        _put_edits(route, only.request, only.response)
        host = host or only.request.host or default_host
    else:
        _put_weighted(action, scene, rule, "" if host else default_host)
    if host:
        action.host_rewrite_literal = host
    # Opaque waiting for a virtual host is bounded by the manager's idle timeout; a delivered route has none.
    pb.duration(action.timeout, rule.timeout_s)
    # A gRPC call ends at its client's deadline (DEADLINE_EXCEEDED; a route's timeout gives UNAVAILABLE). A
    # route that says so isn't held to its timeout any longer: its longest duration says the same again.
    if rule.timeout_s:
        pb.duration(action.max_stream_duration.max_stream_duration, rule.timeout_s)
    pb.duration(action.max_stream_duration.grpc_timeout_header_max, rule.timeout_s)
    pb.duration(action.idle_timeout, 0)
    if rule.retry is not None:
        _put_retry(action.retry_policy, rule.retry, hashed=bool(hashes) and len(rule.targets) == 1)
    if rule.rewrite is not None:
        _put_rewrite(action, rule.rewrite)
    for mirror in rule.mirrors:
        policy = action.request_mirror_policies.add()
        policy.cluster = scene.cluster(mirror.target)
        pb.millionths(policy.runtime_fraction.default_value, mirror.share)
    for hash_on in hashes:
        _put_hash(action.hash_policy.add(), hash_on)


def _put_weighted(action: Any, scene: Scene, rule: HttpRule, default_host: str) -> None:
    """Several destinations. In Envoy, and so in Istio, a new host of the whole route wins over theirs."""
    for weighted in (each for each in rule.targets if not each.broken):
        entry = action.weighted_clusters.clusters.add()
        entry.name = scene.cluster(weighted.target)
        entry.weight.value = weighted.weight
        _put_edits(entry, weighted.request, weighted.response)
        host = weighted.request.host or default_host
        if host:
            entry.host_rewrite_literal = host


def _put_retry(policy: Any, retry: Retry, *, hashed: bool) -> None:
    """``hashed``: a key chose the endpoint; a retry is for the same one unless the rule says otherwise."""
    policy.retry_on = retry.on
    policy.num_retries.value = retry.attempts
    policy.retriable_status_codes.extend(retry.status_codes)
    if retry.per_try_timeout_s is not None:
        pb.duration(policy.per_try_timeout, retry.per_try_timeout_s)
    if not hashed if retry.other_hosts is None else retry.other_hosts:
        predicate = policy.retry_host_predicate.add()
        predicate.name = PREVIOUS_HOSTS
        pb.put(predicate.typed_config, _PREVIOUS_HOSTS)
        policy.host_selection_retry_max_attempts = HOST_SELECTION_ATTEMPTS
    if retry.other_localities:
        policy.retry_priority.name = PREVIOUS_PRIORITIES
        pb.put(policy.retry_priority.typed_config, _PREVIOUS_PRIORITIES)
    if retry.backoff_s is not None:
        pb.duration(policy.retry_back_off.base_interval, retry.backoff_s)
        pb.duration(policy.retry_back_off.max_interval, retry.backoff_s * 10)


def _put_rewrite(action: Any, rewrite: Rewrite) -> None:
    if rewrite.regex:
        action.regex_rewrite.pattern.regex = rewrite.regex
        action.regex_rewrite.substitution = rewrite.substitution
    elif rewrite.prefix:
        action.prefix_rewrite = rewrite.prefix


def _put_redirect(action: Any, redirect: Redirect) -> None:
    if redirect.authority:
        action.host_redirect = redirect.authority
    if redirect.port:
        action.port_redirect = redirect.port
    if redirect.scheme:
        action.scheme_redirect = redirect.scheme
    if redirect.path:
        action.path_redirect = redirect.path
    elif redirect.prefix:
        action.prefix_rewrite = redirect.prefix
    elif redirect.regex:
        action.regex_rewrite.pattern.regex = redirect.regex
        action.regex_rewrite.substitution = redirect.substitution
    action.response_code = _REDIRECTS.get(redirect.code, _REDIRECTS[301])


def _put_edits(target: Any, request: HeaderEdits, response: HeaderEdits) -> None:
    """Header changes of a route or of one of its weighted clusters."""
    for edits, add, remove in (
        (request, target.request_headers_to_add, target.request_headers_to_remove),
        (response, target.response_headers_to_add, target.response_headers_to_remove),
    ):
        for pairs, action in ((edits.set, _OVERWRITE), (edits.add, _APPEND)):
            for name, value in pairs:
                option = add.add()
                option.header.key = name
                option.header.value = value
                option.append_action = action
        remove.extend(edits.remove)


# -- policies that reach into routes -----------------------------------------------------------------------


def _hashes(scene: Scene, rule: HttpRule) -> list[HashOn]:
    """What is hashed on the way to the targets' rings, each once."""
    found: list[HashOn] = []
    for weighted in rule.targets:
        target = weighted.target
        policy = scene.view.query(traffic_policy, (target.host, target.port, target.subset))
        hash_on = policy.balancing.hash_on if policy is not None else None
        if policy is not None and hash_on is not None and hash_on not in found:
            found.append(hash_on)
            scene.provenance.extend(p for p in policy.provenance if p not in scene.provenance)
    return found


def _put_hash(policy: Any, hash_on: HashOn) -> None:
    match hash_on.kind:
        case HashKind.HEADER:
            policy.header.header_name = hash_on.name
        case HashKind.COOKIE:
            policy.cookie.name = hash_on.name
            policy.cookie.path = hash_on.path
            if hash_on.ttl_s is not None:
                pb.duration(policy.cookie.ttl, hash_on.ttl_s)
            for name, value in hash_on.attributes:
                attribute = policy.cookie.attributes.add()
                attribute.name = name
                attribute.value = value
        case HashKind.SOURCE_IP:
            policy.connection_properties.source_ip = True
        case HashKind.QUERY:
            policy.query_parameter.name = hash_on.name
