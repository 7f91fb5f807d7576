"""The listeners of a Gateway, its own and those of its ListenerSets, and what is decided about each.

Own listeners that can't be told apart are all refused; against them, and among each other in order of age,
listeners of ListenerSets lose. A listener whose certificates can't be used isn't served: nothing is answered
in plain text in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from retia.config.schema.config_map import CA_KEY
from retia.config.schema.gateway_api.gateway import FromNamespaces, FrontendValidationMode, TLSMode
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.snapshot import View
from retia.policy.edge.forms import Authority, Certificate, EdgeProtocol, EdgeTls, EdgeTlsMode
from retia.policy.gateway_api.grants import is_granted
from retia.policy.gateway_api.names import (
    CONTROLLER,
    DEFAULT_CLASS,
    GATEWAY_LABEL,
    GROUP,
    GRPC_ROUTE,
    HTTP_ROUTE,
    NAMESPACE_LABEL,
    TCP_ROUTE,
    TLS_ROUTE,
    gateway_ref,
)
from retia.policy.indexes import objects

_KINDS = {
    "HTTP": (HTTP_ROUTE, GRPC_ROUTE),
    "HTTPS": (HTTP_ROUTE, GRPC_ROUTE),
    "TLS": (TLS_ROUTE,),
    "TCP": (TCP_ROUTE,),
}
_FAMILY = {"HTTP": "http", "HTTPS": "tls", "TLS": "tls", "TCP": "tcp"}
MAX_LISTENERS = 64
"""Of a Gateway with its ListenerSets together."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not as its author wanted: the specification's word, and a sentence."""

    word: str
    message: str


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener with what is decided about it; ``None``: nothing is wrong there."""

    owner: ObjectRef
    """The Gateway, or a ListenerSet."""
    index: int
    spec: Any
    conflicted: Reason | None = None
    refused: Reason | None = None
    """Not accepted for another reason than a conflict."""
    unresolved: Reason | None = None
    """A reference or kind in it is wrong; it may still be served with the others."""
    kinds: tuple[str, ...] = ()
    """The kinds of routes that may attach."""
    tls: EdgeTls | None = None
    useless: bool = False
    """No certificate, or no authority, of all is usable: nothing can be served."""

    @property
    def name(self) -> str:
        return str(self.spec.name)

    @property
    def key(self) -> str:
        """Names it among all listeners."""
        return f"{self.owner}/{self.name}"

    @property
    def field(self) -> str:
        return f"spec.listeners[{self.index}]"

    @property
    def host(self) -> str:
        return self.spec.hostname or "*"

    @property
    def port(self) -> int:
        return int(self.spec.port)

    @property
    def protocol(self) -> str:
        return str(self.spec.protocol)

    @property
    def is_http(self) -> bool:
        return self.protocol in ("HTTP", "HTTPS")

    @property
    def accepted(self) -> bool:
        """Routes may attach to it."""
        return self.conflicted is None and self.refused is None

    @property
    def served(self) -> bool:
        """The proxy opens it."""
        return self.accepted and not self.useless

    @property
    def edge_protocol(self) -> EdgeProtocol:
        return EdgeProtocol(self.protocol.lower())


def class_accepted(view: View, name: str) -> bool:
    """Whether Gateways of that class are ours."""
    found: ConfigObject | None = view.fact("config", "GatewayClass", "", name)
    if found is None:
        return name == DEFAULT_CLASS
    return bool(found.spec.controller_name == CONTROLLER)


def gateway_of(view: View) -> ConfigObject | None:
    """The Gateway that this proxy serves."""
    name = dict(view.proxy("labels")).get(GATEWAY_LABEL)
    if not name:
        return None
    ref = gateway_ref(view.proxy("namespace"), name)
    found: ConfigObject | None = view.fact("config", *ref.key)
    if found is None or not class_accepted(view, found.spec.gateway_class_name):
        return None
    return found


def namespace_labels(view: View, namespace: str) -> dict[str, str]:
    """A namespace's labels; every one has its own name as a label."""
    found: ConfigObject | None = view.fact("config", "Namespace", "", namespace)
    return {**(dict(found.labels) if found is not None else {}), NAMESPACE_LABEL: namespace}


def lets_in(view: View, rule: Any, own: str, other: str) -> bool:
    """Whether a rule about namespaces (``from``, ``selector``) of ``own`` lets objects of ``other`` in."""
    match rule.from_:
        case FromNamespaces.ALL:
            return True
        case FromNamespaces.SAME:
            return own == other
        case FromNamespaces.SELECTOR:
            return rule.selector is not None and bool(rule.selector.selects(namespace_labels(view, other)))
        case _:
            return False


def set_allowed(view: View, gateway: ConfigObject, listener_set: ConfigObject) -> bool:
    """Whether the Gateway lets that ListenerSet add listeners."""
    allowed = gateway.spec.allowed_listeners
    return allowed is not None and lets_in(
        view, allowed.namespaces, gateway.ref.namespace, listener_set.ref.namespace
    )


def listener_sets(view: View, gateway: ObjectRef) -> tuple[ConfigObject, ...]:
    """All ListenerSets that name the Gateway as their parent, the oldest first."""
    return objects(view, "listener-set", f"{gateway.namespace}/{gateway.name}")


def listeners(view: View, key: tuple[str, str]) -> tuple[Listener, ...]:
    """The listeners of the Gateway ``(namespace, name)``; those of sets that aren't allowed are left out."""
    gateway: ConfigObject | None = view.fact("config", *gateway_ref(*key).key)
    if gateway is None:
        return ()
    own = _told_apart([_judged(view, gateway, gateway, i) for i in range(len(gateway.spec.listeners))])
    found = list(own)
    for each in listener_sets(view, gateway.ref):
        if not set_allowed(view, gateway, each):
            continue
        for index in range(len(each.spec.listeners)):
            listener = _judged(view, gateway, each, index)
            conflict = next((c for other in found if (c := _conflict(other, listener))), None)
            if len(found) >= MAX_LISTENERS:
                listener = replace(
                    listener,
                    refused=Reason("TooManyListeners", f"a Gateway has at most {MAX_LISTENERS} listeners"),
                )
            found.append(replace(listener, conflicted=conflict))
    return tuple(found)


# -- telling listeners apart -------------------------------------------------------------------------------


def _told_apart(own: list[Listener]) -> Iterator[Listener]:
    for each in own:
        conflict = next((c for other in own if other is not each and (c := _conflict(other, each))), None)
        yield replace(each, conflicted=conflict)


def _conflict(one: Listener, other: Listener) -> Reason | None:
    """Why requests for the two couldn't be told apart; listeners that are refused are no trouble."""
    if one.port != other.port or one.conflicted or one.refused or other.refused:
        return None
    where = f"port {one.port} is also that of listener {one.name}" + (
        f" of {one.owner}" if one.owner != other.owner else ""
    )
    ours, theirs = _FAMILY[other.protocol], _FAMILY[one.protocol]
    if ours != theirs:
        return Reason("ProtocolConflict", f"{where}, whose protocol {one.protocol} can't share it")
    if ours == "tcp" or one.host == other.host:
        word = "HostnameConflict" if one.protocol == other.protocol else "ProtocolConflict"
        return Reason(word, f"{where}, for the same host names")
    return None


# -- one listener ------------------------------------------------------------------------------------------


def _judged(view: View, gateway: ConfigObject, owner: ConfigObject, index: int) -> Listener:
    spec = owner.spec.listeners[index]
    listener = Listener(owner.ref, index, spec)
    known = _KINDS.get(spec.protocol)
    if known is None:
        word = Reason("UnsupportedProtocol", f"protocol {spec.protocol} is not carried")
        return replace(listener, refused=word)
    if spec.protocol == "TLS" and spec.tls.mode is TLSMode.TERMINATE:
        known = (TLS_ROUTE, TCP_ROUTE)
    listener = _with_kinds(listener, known)
    if spec.protocol == "HTTPS" and spec.tls is None:
        word = Reason("InvalidCertificateRef", "no certificate is named")
        return replace(listener, unresolved=word, useless=True)
    return _with_tls(view, gateway, listener) if spec.tls is not None else listener


def _with_kinds(listener: Listener, known: tuple[str, ...]) -> Listener:
    wanted = listener.spec.allowed_routes.kinds
    if not wanted:
        return replace(listener, kinds=known)
    good = tuple(each.kind for each in wanted if each.group == GROUP and each.kind in known)
    bad = [each.kind for each in wanted if each.group != GROUP or each.kind not in known]
    if not bad:
        return replace(listener, kinds=good)
    message = f"allowedRoutes has {', '.join(bad)}, which protocol {listener.protocol} can't carry"
    return replace(listener, kinds=good, unresolved=Reason("InvalidRouteKinds", message))


def _with_tls(view: View, gateway: ConfigObject, listener: Listener) -> Listener:
    tls = listener.spec.tls
    if tls.mode is TLSMode.PASSTHROUGH:
        return replace(listener, tls=EdgeTls(EdgeTlsMode.PASSTHROUGH))
    certificates: list[Certificate] = []
    wrong: Reason | None = None
    for ref in tls.certificate_refs:
        found = certificate(view, listener.owner, ref)
        if isinstance(found, Reason):
            wrong = wrong or found
        else:
            certificates.append(found)
    form = EdgeTls(EdgeTlsMode.SIMPLE, tuple(certificates))
    listener = replace(listener, tls=form, unresolved=wrong or listener.unresolved, useless=not certificates)
    return _with_clients(view, gateway, listener) if listener.protocol == "HTTPS" else listener


def certificate(view: View, origin: ObjectRef, ref: Any) -> Certificate | Reason:
    """A certificate that ``origin`` refers to."""
    if (ref.group, ref.kind) != ("", "Secret"):
        return Reason("InvalidCertificateRef", f"{ref.kind} {ref.name} is no Secret")
    namespace = ref.namespace or origin.namespace
    where = f"Secret {namespace}/{ref.name}"
    if not is_granted(view, origin, "", "Secret", namespace, ref.name):
        return Reason("RefNotPermitted", f"no ReferenceGrant in {namespace} allows {where}")
    secret: ConfigObject | None = view.fact("config", "Secret", namespace, ref.name)
    if secret is None:
        return Reason("InvalidCertificateRef", f"{where} doesn't exist")
    chain, key = secret.spec.value("tls.crt"), secret.spec.value("tls.key")
    if chain is None or key is None or not _is_pem(chain.reveal()) or not _is_pem(key.reveal()):
        return Reason("InvalidCertificateRef", f"{where} holds no certificate and key in PEM")
    return Certificate(secret=f"{namespace}/{ref.name}")


def _is_pem(content: bytes) -> bool:
    return b"-----BEGIN " in content and b"-----END " in content


def _with_clients(view: View, gateway: ConfigObject, listener: Listener) -> Listener:
    """Certificates of clients: as the Gateway says for the port, or by default."""
    frontend = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if frontend is None or listener.tls is None:
        return listener
    config = next((each.tls for each in frontend.per_port if each.port == listener.port), frontend.default)
    if config.validation is None:
        return listener
    texts: list[str] = []
    wrong: Reason | None = None
    for ref in config.validation.ca_certificate_refs:
        found = authority(view, gateway.ref, ref, ref.namespace or gateway.ref.namespace)
        if isinstance(found, Reason):
            wrong = wrong or found
        else:
            texts.append(found)
    if not texts:
        reason = Reason("NoValidCACertificate", "no authority for clients' certificates can be used")
        return replace(listener, refused=reason, unresolved=wrong)
    form = replace(
        listener.tls,
        mode=EdgeTlsMode.MUTUAL,
        authority=Authority(pem="\n".join(texts).encode()),
        accept_untrusted=False,
    )
    if config.validation.mode is FrontendValidationMode.INSECURE_FALLBACK:
        form = replace(form, mode=EdgeTlsMode.OPTIONAL_MUTUAL, accept_untrusted=True)
    return replace(listener, tls=form, unresolved=wrong or listener.unresolved)


def authority(view: View, origin: ObjectRef, ref: Any, namespace: str) -> str | Reason:
    """The certificates in a ConfigMap (or Secret) that ``origin`` refers to, in PEM."""
    if ref.group != "" or ref.kind not in ("ConfigMap", "Secret"):
        return Reason("InvalidCACertificateKind", f"{ref.kind} {ref.name} is no ConfigMap")
    where = f"{ref.kind} {namespace}/{ref.name}"
    if not is_granted(view, origin, "", ref.kind, namespace, ref.name):
        return Reason("RefNotPermitted", f"no ReferenceGrant in {namespace} allows {where}")
    found: ConfigObject | None = view.fact("config", ref.kind, namespace, ref.name)
    if found is None:
        return Reason("InvalidCACertificateRef", f"{where} doesn't exist")
    if ref.kind == "Secret":
        value = found.spec.value(CA_KEY)
        text = value.reveal().decode("utf-8", "replace") if value is not None else ""
    else:
        text = dict(found.spec.data).get(CA_KEY, "")
        text = text or dict(found.spec.binary_data).get(CA_KEY, b"").decode("utf-8", "replace")
    if not _is_pem(text.encode()):
        return Reason("InvalidCACertificateRef", f"{where} has no certificate in PEM under {CA_KEY}")
    return text
