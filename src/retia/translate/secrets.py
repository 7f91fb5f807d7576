"""Secrets over SDS: certificates, keys and authorities out of ``Secret`` objects.

A proxy gets a secret only where an object that holds for it names it: a gateway its servers' certificates, a
caller the credentials of its DestinationRules. Everything else is answered by "there is none", whoever asks.
The own certificate and the mesh's bundle are not of this kind: the host's agent has them.
"""

from __future__ import annotations

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from retia.config.schema.secret import AUTHORITY_SUFFIX
from retia.model.ids import own_namespace
from retia.model.mesh import ProxyKind, labels_match
from retia.model.resource import Built
from retia.model.snapshot import View
from retia.policy.edge import edge_servers
from retia.policy.edge.secrets import key_pair, trust
from retia.policy.indexes import objects
from retia.policy.visibility import visible
from retia.translate import pb

SCHEME = "kubernetes://"
"""Of secrets of the proxy's own namespace; Istio's."""
FOREIGN_SCHEME = "kubernetes-gateway://"
"""Of secrets of other namespaces, which a ReferenceGrant allows: ``kubernetes-gateway://namespace/name``."""


def certificate_secret(secret: str, namespace: str) -> str:
    """The SDS name of the certificate and key in ``namespace/name``, for a proxy in ``namespace``."""
    where, _, name = secret.partition("/")
    return f"{SCHEME}{name}" if where == own_namespace(namespace) else f"{FOREIGN_SCHEME}{secret}"


def authority_secret(secret: str, namespace: str) -> str:
    """The SDS name of the authority that belongs to ``namespace/name``."""
    return f"{certificate_secret(secret.removesuffix(AUTHORITY_SUFFIX), namespace)}{AUTHORITY_SUFFIX}"


def build_secret(view: View, name: str) -> Built:
    """The secret of that SDS name; no message where this proxy may not have it, or it can't be used."""
    secret = _object_of(name, view.proxy("namespace"))
    if not secret:
        return Built(name, None)
    authority = name.endswith(AUTHORITY_SUFFIX)
    if not (_serves(view, name) or _calls(view, secret)):
        return Built(name, None)
    message = secret_pb2.Secret()
    message.name = name
    if authority:
        trusted = view.query(trust, secret)
        if trusted.wrong:
            return Built(name, None, provenance=trusted.provenance)
        message.validation_context.trusted_ca.inline_bytes = trusted.authority
        if trusted.revoked:
            message.validation_context.crl.inline_bytes = trusted.revoked
        return Built(name, pb.dump(message), provenance=trusted.provenance)
    pair = view.query(key_pair, secret)
    if pair.key is None:
        return Built(name, None, provenance=pair.provenance)
    message.tls_certificate.certificate_chain.inline_bytes = pair.chain
    message.tls_certificate.private_key.inline_bytes = pair.key.reveal()
    return Built(name, pb.dump(message), provenance=pair.provenance)


def _object_of(name: str, namespace: str) -> str:
    """``namespace/name`` of the Secret behind an SDS name (of an authority: without its suffix)."""
    name = name.removesuffix(AUTHORITY_SUFFIX)
    if name.startswith(FOREIGN_SCHEME):
        found = name.removeprefix(FOREIGN_SCHEME)
        return found if found.count("/") == 1 else ""
    if not name.startswith(SCHEME):
        return ""
    found = name.removeprefix(SCHEME)
    return f"{own_namespace(namespace)}/{found}" if found and "/" not in found else ""


def _serves(view: View, name: str) -> bool:
    """Whether a server of this gateway names it."""
    if view.proxy("kind") is not ProxyKind.GATEWAY:
        return False
    return name in view.query(served_secrets, "")


def served_secrets(view: View, _key: str) -> frozenset[str]:
    """The SDS names of all secrets that this gateway's servers need."""
    namespace = view.proxy("namespace")
    found: set[str] = set()
    for server in view.query(edge_servers, "").servers:
        if server.tls is None:
            continue
        found.update(certificate_secret(c.secret, namespace) for c in server.tls.certificates if c.secret)
        if server.tls.authority.secret:
            found.add(authority_secret(server.tls.authority.secret, namespace))
    return frozenset(found)


def _calls(view: View, secret: str) -> bool:
    """Whether a DestinationRule that holds for this proxy names it as ``credentialName``, which means one of
    the proxy's own namespace. At sidecars only a rule that selects its proxies may, as in Istio: or every
    program of the namespace could use the key."""
    kind = view.proxy("kind")
    here = view.proxy("namespace")
    namespace, _, name = secret.partition("/")
    if namespace != own_namespace(here):
        return False
    for obj in objects(view, "credential", name):
        selector = obj.spec.workload_selector
        if selector is not None and selector.match_labels:
            same = own_namespace(here) == obj.ref.namespace
            if same and labels_match(selector.match_labels, view.proxy("labels")):
                return True
        elif kind is ProxyKind.GATEWAY and visible(obj.spec.export_to, obj.ref.namespace, here):
            return True
    return False
