"""The codes of responses that the mesh makes itself: one table for the proxies and for ``retia why``.

A proxy that answers in place of the service says so by two headers: ``Proxy-Status`` (RFC 9209) and
``retia-code`` with one of these. As for findings, a code is never used again for something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

HEADER = "retia-code"
NO_DESTINATION = "RT5002"
"""Envoy has no flag for it where a route answers by itself: that route says it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reason for which a proxy answers by itself.

    ``retia why`` recognises it by Envoy's response flags (any of ``flags``), narrowed by words of the
    response code details (``within``), or by the beginning of the details. A proxy has cheaper means, as it
    needs them once for each port that any service declares: the flags, or that the request ``lacks`` a
    header; and the details only where it has one of the ``filters`` that set no flag. It doesn't tell a reply
    with ``within`` from the one of the flag alone.
    """

    code: str
    title: str
    cause: str
    remedy: str
    flags: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    """The beginnings of the names of HTTP filters, as chains have them."""
    error: str = ""
    """The error type for ``Proxy-Status`` where Envoy, seeing no flag, adds no such header."""


_REPLIES = (
    Reply(
        "RT5005",
        "Connecting took too long",
        "The chosen instance did not accept a connection within the connect timeout.",
        "See whether its host is reachable and its program accepts connections; the time is "
        "connectionPool.tcp.connectTimeout of a DestinationRule (10 s by default).",
        flags=("UF",),
        within=("connection_timeout", "connect_timeout"),
    ),
    Reply(
        "RT5006",
        "The TLS handshake failed",
        "The two sides could not agree on TLS: no TLS on the other side, an identity that is not "
        "the expected one, "
        "or a certificate that is not trusted or has expired.",
        "Compare the DestinationRule's tls with the PeerAuthentication of the callee ('retia "
        "analyze'), and the "
        "certificates ('retia proxy config NAME certs').",
        flags=("UF",),
        within=("TLS_error", "SSL_error", "CERTIFICATE_VERIFY_FAILED"),
    ),
    Reply(
        "RT5004",
        "The connection failed",
        "No program accepts connections at the chosen instance, its host refused them or did not answer in "
        "time (RT5005), or the two sides could not agree on TLS (RT5006).",
        "See whether the callee runs and listens: 'retia workloads'; if it has just stopped, retries pass "
        "over it. 'retia why' with the Proxy-Status header says which of the three it is.",
        flags=("UF",),
    ),
    Reply(
        "RT5001",
        "No rule takes the request",
        "No service of the mesh has this host, or every rule for it asks for something that the "
        "request lacks.",
        "See what applies with 'retia explain --from WORKLOAD --to URL'; add a rule without a "
        "match as the last one.",
        flags=("NR",),
    ),
    Reply(
        NO_DESTINATION,
        "The destination does not exist",
        "A rule sends the request to a host, port or subset that is not defined.",
        "'retia analyze' names the rule; correct the destination, or define the subset in a DestinationRule.",
        flags=("NC",),
    ),
    Reply(
        "RT5003",
        "No healthy instance",
        "The destination has no instance that can be called: none runs, none is ready, or all are ejected.",
        "See 'retia services' and 'retia workloads'; for a subset, compare its labels with those "
        "of the workloads.",
        flags=("UH",),
    ),
    Reply(
        "RT5009",
        "The request took too long",
        "The response did not come within the timeout that a rule sets for the request.",
        "Raise the rule's timeout ('retia explain' says which), or find out why the callee is slow.",
        flags=("UT", "DT", "UMSDR"),
    ),
    Reply(
        "RT5010",
        "The circuit is open",
        "A limit of the destination is reached: connections, waiting requests, or requests at once.",
        "Raise connectionPool of the DestinationRule, start more instances, or call less.",
        flags=("UO",),
    ),
    Reply(
        "RT5012",
        "A fault was injected",
        "A rule with fault.abort answered this request on purpose.",
        "Take the fault out of the rule; 'retia explain' says which rule it is.",
        flags=("FI",),
    ),
    Reply(
        "RT5007",
        "The callee closed the connection",
        "The connection ended after the request was sent and before a response came.",
        "See the callee's log: it crashed, was stopped, or closes idle connections sooner than its callers.",
        flags=("UC",),
    ),
    Reply(
        "RT5008",
        "The callee gave up the request",
        "The callee reset the request's stream instead of answering.",
        "See the callee's log; a gRPC or HTTP/2 server resets streams that it refuses or whose "
        "handler failed.",
        flags=("UR",),
    ),
    Reply(
        "RT5018",
        "Nothing moved for too long",
        "Neither side sent anything within the idle time, or the configuration for the host did "
        "not come in time.",
        "See the callee; where the host is called for the first time, see 'retia status' and "
        "'retia proxies'.",
        flags=("SI",),
    ),
    Reply(
        "RT5019",
        "The name could not be resolved",
        "DNS has no address for the destination.",
        "Correct the host of the ServiceEntry, or see why DNS does not answer.",
        flags=("DF",),
    ),
    Reply(
        "RT5016",
        "Too much load",
        "The proxy or an overload policy sheds requests to stay alive.",
        "Start more instances or call less; 'retia explain' names the policy, if one is at work.",
        flags=("OM", "DO"),
        details=("reached_concurrency_limit", "denied_by_admission_control", "overload"),
        filters=("envoy.filters.http.adaptive_concurrency", "envoy.filters.http.admission_control"),
        error="proxy_internal_response",
    ),
    Reply(
        "RT5014",
        "The rate limit service failed",
        "The limit could not be asked for and its policy refuses requests then.",
        "See 'retia ratelimit'; a policy that fails open lets requests through meanwhile.",
        flags=("RLSE",),
    ),
    Reply(
        "RT5013",
        "Rate limited",
        "More requests came than a rate limit allows.",
        "Wait (the RateLimit and Retry-After headers say how long), or raise the limit of the policy.",
        flags=("RL",),
        details=("local_rate_limited", "request_rate_limited"),
        filters=("envoy.filters.http.local_ratelimit",),
    ),
    Reply(
        "RT5015",
        "Access denied",
        "The callee's policy does not let this caller do this.",
        "See the policies of the callee; the caller is known by its certificate, so mutual TLS "
        "must be in use.",
        flags=("UAEX",),
        details=("rbac_access_denied", "ext_authz_denied", "jwt_authn_access_denied"),
        filters=("envoy.filters.http.rbac", "envoy.filters.http.ext_authz", "envoy.filters.http.jwt_authn"),
        error="http_request_denied",
    ),
    Reply(
        "RT5017",
        "The body is too large",
        "The request's or the response's body is longer than a policy or a filter that holds it "
        "whole allows.",
        "Send less at once, or raise the limit.",
        details=("request_payload_too_large", "response_payload_too_large", "payload_too_large"),
        filters=("envoy.filters.http.buffer", "envoy.filters.http.grpc_json_transcoder"),
        error="http_request_error",
    ),
    Reply(
        "RT5020",
        "The request is not well formed",
        "What came is not HTTP, or its headers break a rule or are too large.",
        "Correct the client; for other protocols declare the port's protocol as tcp.",
        flags=("DPE", "IH"),
        details=(
            "http1.",
            "http2.",
            "http3.",
            "missing_host",
            "missing_path",
            "request_headers_failed",
            "low_version",
        ),
        lacks=(":path", ":authority"),
        error="http_request_error",
    ),
    Reply(
        "RT5021",
        "The response is not well formed",
        "What the callee answered is not HTTP as its port promises.",
        "Declare the port's protocol as what the callee speaks (http, http2, grpc or tcp).",
        flags=("UPE",),
    ),
    Reply(
        "RT5023",
        "A filter's configuration is missing",
        "A part of the proxy's configuration has not come.",
        "See 'retia proxies' for what it refused.",
        flags=("NFCF",),
    ),
    Reply(
        "RT5024",
        "The proxy gave up the request",
        "The proxy itself ended the request: it is being stopped, or its client went away.",
        "Repeat the request; see 'retia proxies' if it goes on.",
        flags=("LR",),
    ),
    Reply(
        "RT5011",
        "All retries failed",
        "The request was tried as often as the rule allows, and every try failed.",
        "See why the callee fails; retries and their number stand in the rule.",
        flags=("URX",),
    ),
)

REPLIES: Mapping[str, Reply] = MappingProxyType({reply.code: reply for reply in _REPLIES})
"""By code; in the order in which a response is compared with them: the first that fits is it."""


def of(flags: str, details: str) -> Reply | None:
    """The reply that a proxy's response flags (``UF,URX``) and details mean."""
    given = set(flags.split(","))
    for reply in REPLIES.values():
        flagged = bool(given & set(reply.flags)) and (
            not reply.within or any(word in details for word in reply.within)
        )
        if flagged or any(details.startswith(start) for start in reply.details):
            return reply
    return None
