"""GatewayClass, Gateway and ListenerSet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from retia.analysis.status.conditions import Condition, Serving, bad, data_of, good
from retia.model.objects import ConfigObject
from retia.model.snapshot import View
from retia.policy.gateway_api.attachment import attachments
from retia.policy.gateway_api.listeners import (
    Listener,
    Reason,
    class_accepted,
    listener_sets,
    listeners,
    set_allowed,
)
from retia.policy.gateway_api.names import CONTROLLER, GROUP, gateway_ref

FEATURES = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackoff",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
)
"""By the names of the conformance suite; those of the specification's core among them."""


def of_class(_view: View, obj: ConfigObject, generation: int, _serving: Serving) -> dict[str, Any]:
    """A class of another controller is left alone: it has no status of ours."""
    if obj.spec.controller_name != CONTROLLER:
        return {}
    accepted = good("Accepted", "Gateways of this class are served by the mesh's gateway proxies")
    if obj.spec.parameters_ref is not None:
        reason = Reason("InvalidParameters", "parametersRef: a class has no parameters here")
        accepted = bad("Accepted", reason)
    return {
        "conditions": data_of((accepted, good("SupportedVersion")), generation),
        "supportedFeatures": [{"name": each} for each in FEATURES],
    }


def of_gateway(view: View, obj: ConfigObject, generation: int, serving: Serving) -> dict[str, Any]:
    """A Gateway of a class that isn't ours has no status of ours."""
    if not class_accepted(view, obj.spec.gateway_class_name):
        return {}
    key = (obj.ref.namespace, obj.ref.name)
    found = view.query(listeners, key)
    own = [each for each in found if each.owner == obj.ref]
    accepted = _accepted(obj, own)
    conditions = [accepted, _programmed(accepted, own, serving)]
    unresolved = [each.name for each in own if each.unresolved is not None]
    if unresolved:
        reason = Reason("ListenersNotResolved", f"references of {', '.join(unresolved)} can't be resolved")
        conditions.append(bad("ResolvedRefs", reason))
    else:
        conditions.append(good("ResolvedRefs"))
    if any(each.tls is not None and each.tls.accept_untrusted for each in own):
        message = "certificates of clients are not verified on some listeners"
        conditions.append(Condition("InsecureFrontendValidationMode", True, "ConfigurationChanged", message))
    allowed = [each for each in listener_sets(view, obj.ref) if set_allowed(view, obj, each)]
    status = {
        "addresses": [{"type": _address_type(each), "value": each} for each in serving.addresses],
        "conditions": data_of(conditions, generation),
        "listeners": _listeners(view, key, own, generation, serving),
        "attachedListenerSets": len(allowed),
    }
    return {name: value for name, value in status.items() if value or name != "addresses"}


def _address_type(address: str) -> str:
    return "IPAddress" if address.replace(".", "").isdigit() or ":" in address else "Hostname"


def _accepted(obj: ConfigObject, own: Iterable[Listener]) -> Condition:
    wrong = [each for each in own if not each.accepted]
    if obj.spec.infrastructure is not None and obj.spec.infrastructure.parameters_ref is not None:
        return bad("Accepted", Reason("InvalidParameters", "parametersRef: Gateways have no parameters here"))
    for address in obj.spec.addresses:
        if address.type not in ("IPAddress", "Hostname"):
            message = f"addresses of type {address.type} are not known"
            return bad("Accepted", Reason("UnsupportedAddress", message))
    if not wrong:
        return good("Accepted")
    names = ", ".join(each.name for each in wrong)
    some_left = len(wrong) < len(list(own))
    return Condition("Accepted", some_left, "ListenersNotValid", f"not accepted: {names}")


def _programmed(accepted: Condition, own: Iterable[Listener], serving: Serving) -> Condition:
    if not accepted.status:
        return bad("Programmed", Reason("Invalid", "the Gateway is not accepted"))
    if not any(each.served for each in own):
        return bad("Programmed", Reason("Invalid", "no listener can be served"))
    if not serving.proxies:
        return bad("Programmed", Reason("AddressNotAssigned", "no gateway proxy of that name is running"))
    if serving.rejected:
        return bad("Programmed", Reason("Invalid", f"a proxy rejects it: {serving.rejected}"))
    if serving.pending:
        return bad("Programmed", Reason("Pending", "a proxy has not taken all of it yet"))
    return good("Programmed")


def _listeners(
    view: View, key: tuple[str, str], found: Iterable[Listener], generation: int, serving: Serving
) -> list[dict[str, Any]]:
    attached = view.query(attachments, key)
    status = []
    for each in found:
        routes = {(one.route.kind, one.route.namespace, one.route.name) for one in attached.of(each)}
        status.append(
            {
                "name": each.name,
                "supportedKinds": [{"group": GROUP, "kind": kind} for kind in each.kinds],
                "attachedRoutes": len(routes),
                "conditions": data_of(_listener(each, serving), generation),
            }
        )
    return status


def _listener(listener: Listener, serving: Serving) -> list[Condition]:
    wrong = listener.refused or listener.conflicted
    accepted = bad("Accepted", wrong) if wrong is not None else good("Accepted")
    if listener.conflicted is not None:
        one = listener.conflicted
        conflicted = Condition("Conflicted", True, one.word, one.message)
    else:
        conflicted = Condition("Conflicted", False, "NoConflicts")
    resolved = good("ResolvedRefs")
    if listener.unresolved is not None:
        resolved = bad("ResolvedRefs", listener.unresolved)
    if not listener.served:
        programmed = bad("Programmed", Reason("Invalid", "the listener is not served"))
    elif not serving.proxies or serving.pending:
        programmed = bad("Programmed", Reason("Pending", "no proxy serves it yet"))
    elif serving.rejected:
        programmed = bad("Programmed", Reason("Invalid", serving.rejected))
    else:
        programmed = good("Programmed")
    return [accepted, conflicted, resolved, programmed]


def of_listener_set(view: View, obj: ConfigObject, generation: int, serving: Serving) -> dict[str, Any]:
    parent = obj.spec.parent_ref
    ref = gateway_ref(parent.namespace or obj.ref.namespace, parent.name)
    gateway: ConfigObject | None = view.fact("config", *ref.key)
    if gateway is None or not class_accepted(view, gateway.spec.gateway_class_name):
        reason = Reason("ParentNotAccepted", f"Gateway {ref.namespace}/{ref.name} isn't there, or not ours")
        return _refused_set(reason, generation)
    if not set_allowed(view, gateway, obj):
        reason = Reason("NotAllowed", f"Gateway {ref.namespace}/{ref.name} does not allow it")
        return _refused_set(reason, generation)
    key = (ref.namespace, ref.name)
    own = [each for each in view.query(listeners, key) if each.owner == obj.ref]
    accepted = _accepted_set(own)
    return {
        "conditions": data_of((accepted, _programmed(accepted, own, serving)), generation),
        "listeners": _listeners(view, key, own, generation, serving),
    }


def _accepted_set(own: list[Listener]) -> Condition:
    wrong = [each.name for each in own if not each.accepted]
    if not wrong:
        return good("Accepted")
    return Condition(
        "Accepted", len(wrong) < len(own), "ListenersNotValid", f"not accepted: {', '.join(wrong)}"
    )


def _refused_set(reason: Reason, generation: int) -> dict[str, Any]:
    programmed = bad("Programmed", Reason(reason.word, "its listeners are not served"))
    return {"conditions": data_of((bad("Accepted", reason), programmed), generation)}
