"""Istio's ``Gateway`` objects as servers, and VirtualServices bound to them as hosts and rules.

Which objects a proxy serves follows from its labels. Of servers that can't stand beside one another at one
port the older object's stays, as in Istio; what is left out is a finding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from retia.config.codes import Code, finding
from retia.config.schema.gateway import GatewayServer, ServerTLSMode, ServerTLSSettings, TLSProtocol
from retia.model.finding import Finding
from retia.model.ids import own_namespace, qualify
from retia.model.mesh import labels_match
from retia.model.objects import ConfigObject, ObjectRef
from retia.model.resource import Provenance
from retia.model.snapshot import View
from retia.policy.edge.forms import (
    Authority,
    Certificate,
    EdgeHost,
    EdgeProtocol,
    EdgeServer,
    EdgeServers,
    EdgeTls,
    EdgeTlsMode,
    HttpRules,
    TcpRules,
    TlsVersion,
)
from retia.policy.edge.hosts import intersection
from retia.policy.edge.secrets import key_pair, trust
from retia.policy.indexes import objects
from retia.policy.registry import mesh
from retia.policy.routing import rules_of, tcp_rules_of

PREFIX = "istio/"
SECRET_SCHEME = "kubernetes://"

_MODES = {
    ServerTLSMode.SIMPLE: EdgeTlsMode.SIMPLE,
    ServerTLSMode.MUTUAL: EdgeTlsMode.MUTUAL,
    ServerTLSMode.OPTIONAL_MUTUAL: EdgeTlsMode.OPTIONAL_MUTUAL,
    ServerTLSMode.ISTIO_MUTUAL: EdgeTlsMode.MESH_MUTUAL,
    ServerTLSMode.PASSTHROUGH: EdgeTlsMode.PASSTHROUGH,
    ServerTLSMode.AUTO_PASSTHROUGH: EdgeTlsMode.AUTO_PASSTHROUGH,
}
_VERSIONS = {
    TLSProtocol.AUTO: TlsVersion.AUTO,
    TLSProtocol.V1_0: TlsVersion.V1_0,
    TLSProtocol.V1_1: TlsVersion.V1_1,
    TLSProtocol.V1_2: TlsVersion.V1_2,
    TLSProtocol.V1_3: TlsVersion.V1_3,
}
_VERIFYING = (EdgeTlsMode.MUTUAL, EdgeTlsMode.OPTIONAL_MUTUAL)


# -- servers -----------------------------------------------------------------------------------------------


def servers(view: View, _key: str) -> EdgeServers:
    """All servers of the Gateways that select this proxy."""
    plan = _Plan()
    for obj in gateways(view):
        for index, server in enumerate(obj.spec.servers):
            plan.add(view, obj, index, server)
    return EdgeServers(tuple(plan.servers), tuple(plan.findings), tuple(dict.fromkeys(plan.provenance)))


def gateways(view: View) -> tuple[ConfigObject, ...]:
    """The Gateways whose selector this proxy's labels satisfy, the oldest first."""
    labels = view.proxy("labels")
    keys = ["", *("=".join(pair) for pair in labels)]
    found = {obj.ref: obj for key in keys for obj in objects(view, "gateway", key)}
    mine = (obj for obj in found.values() if labels_match(obj.spec.selector, labels))
    return tuple(sorted(mine, key=lambda obj: obj.order))


@dataclass(slots=True)
class _Plan:
    """What has been taken so far at each port."""

    servers: list[EdgeServer] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    provenance: list[Provenance] = field(default_factory=list)
    kinds: dict[tuple[str, int], str] = field(default_factory=dict)
    """By address and port: ``http``, ``tls`` or ``tcp``."""
    names: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    """By address and port: which server names are taken, and by whom."""

    def add(self, view: View, obj: ConfigObject, index: int, server: GatewayServer) -> None:
        where = f"spec.servers[{index}]"
        self.provenance.append(Provenance(obj.ref, where))
        protocol = _protocol(server)
        hosts = tuple(dict.fromkeys(host.rpartition("/")[2] for host in server.hosts))
        if not self._fits(obj, where, server, protocol, hosts):
            return
        tls = None
        if protocol in (EdgeProtocol.HTTPS, EdgeProtocol.TLS) and server.tls is not None:
            tls = self._tls(view, obj, f"{where}.tls", server.tls)
            if tls is None:
                return
        key = (server.bind, server.port.number)
        self.kinds.setdefault(key, _family(protocol))
        if tls is not None:
            self.names.setdefault(key, {}).update(dict.fromkeys(hosts, f"{obj.ref} {where}"))
        self.servers.append(
            EdgeServer(
                key=f"{PREFIX}{obj.ref.namespace}/{obj.ref.name}/{index}",
                port=server.port.number,
                protocol=protocol,
                hosts=hosts,
                ref=obj.ref,
                field=where,
                name=server.port.name,
                bind=server.bind,
                tls=tls,
                https_redirect=bool(server.tls and server.tls.https_redirect),
                grpc_web=server.port.kind == "GRPC-WEB",
            )
        )

    def _fits(
        self,
        obj: ConfigObject,
        where: str,
        server: GatewayServer,
        protocol: EdgeProtocol,
        hosts: tuple[str, ...],
    ) -> bool:
        """Whether the server can stand beside those that are there at its port."""
        key = (server.bind, server.port.number)
        family = _family(protocol)
        there = self.kinds.get(key)
        if there is not None and (there != family or family == "tcp"):
            what = f"opens port {key[1]} for {server.port.kind}, where an older Gateway has it for {there}"
            self._note(obj, f"{what}; this server is left out", where, Code.PROTOCOL_MISMATCH)
            return False
        if family != "tls":
            return True
        for host in hosts:
            owner = self.names.get(key, {}).get(host)
            if owner is not None:
                message = f"serves {host} at port {key[1]}, as {owner} does, which is older"
                self._note(obj, f"{message}; this server is left out", where, Code.HOST_CONFLICT)
                return False
        return True

    def _tls(self, view: View, obj: ConfigObject, where: str, tls: ServerTLSSettings) -> EdgeTls | None:
        """``None``: what it names isn't there, and the server stays shut."""
        mode = _MODES[tls.mode]
        certificates: tuple[Certificate, ...] = ()
        authority = Authority()
        if mode in (EdgeTlsMode.SIMPLE, *_VERIFYING):
            named = tls.credential_names or ((tls.credential_name,) if tls.credential_name else ())
            found = [self._secret(view, obj, where, name) for name in named]
            if any(each is None for each in found):
                return None
            secrets = [each for each in found if each is not None]
            certificates = tuple(Certificate(secret=each) for each in secrets) or _files(tls)
            if mode in _VERIFYING:
                authority = self._authority(view, tls, secrets)
                if authority.secret:
                    trusted = view.query(trust, authority.secret)
                    self.provenance.extend(trusted.provenance)
                    if trusted.wrong:
                        self._shut(obj, trusted.wrong, where)
                        return None
        return EdgeTls(
            mode=mode,
            certificates=certificates,
            authority=authority,
            names=tls.subject_alt_names,
            spki=tls.verify_certificate_spki,
            hashes=tls.verify_certificate_hash,
            min_version=_VERSIONS[tls.min_protocol_version],
            max_version=_VERSIONS[tls.max_protocol_version],
            ciphers=tls.cipher_suites,
        )

    def _secret(self, view: View, obj: ConfigObject, where: str, name: str) -> str | None:
        """A secret by the name that a Gateway gives it, as ``namespace/name``, where it can be used."""
        home = own_namespace(view.proxy("namespace"))
        namespace, slash, rest = name.removeprefix(SECRET_SCHEME).rpartition("/")
        if "://" in name and not name.startswith(SECRET_SCHEME):
            self._shut(obj, f"credentialName is {name}; only names of Secrets are supported", where)
            return None
        if slash and own_namespace(namespace) != home:
            self._shut(obj, f"Secret {namespace}/{rest} is not of the gateway's namespace {home}", where)
            return None
        secret = f"{home}/{rest}"
        pair = view.query(key_pair, secret)
        self.provenance.extend(pair.provenance)
        if pair.wrong:
            self._shut(obj, pair.wrong, where)
            return None
        return secret

    def _authority(self, view: View, tls: ServerTLSSettings, secrets: list[str]) -> Authority:
        home = own_namespace(view.proxy("namespace"))
        if tls.ca_cert_credential_name:
            return Authority(secret=f"{home}/{tls.ca_cert_credential_name.removeprefix(SECRET_SCHEME)}")
        if secrets:
            return Authority(secret=secrets[0])
        listed = next((pair.ca_certificates for pair in tls.tls_certificates if pair.ca_certificates), "")
        return Authority(file=tls.ca_certificates or listed, crl_file=tls.ca_crl)

    def _shut(self, obj: ConfigObject, why: str, where: str) -> None:
        message = f"{why}; the server stays shut until that is right"
        remedy = "create the Secret in the namespace of the gateway proxy"
        self.findings.append(finding(Code.NO_CERTIFICATE, message, ref=obj.ref, field=where, remedy=remedy))

    def _note(self, obj: ConfigObject, message: str, where: str, code: Code) -> None:
        self.findings.append(finding(code, message, ref=obj.ref, field=where))


def _protocol(server: GatewayServer) -> EdgeProtocol:
    """What the port speaks. HTTPS that isn't opened is TLS."""
    kind = server.port.kind
    opened = server.tls is not None and _MODES[server.tls.mode].is_opened
    if kind == "HTTPS":
        return EdgeProtocol.HTTPS if opened else EdgeProtocol.TLS
    if kind == "TLS":
        return EdgeProtocol.TLS
    return EdgeProtocol.HTTP if kind in ("HTTP", "HTTP2", "GRPC", "GRPC-WEB") else EdgeProtocol.TCP


def _family(protocol: EdgeProtocol) -> str:
    return "tls" if protocol in (EdgeProtocol.HTTPS, EdgeProtocol.TLS) else protocol.value


def _files(tls: ServerTLSSettings) -> tuple[Certificate, ...]:
    if tls.tls_certificates:
        pairs = ((pair.server_certificate, pair.private_key) for pair in tls.tls_certificates)
        return tuple(Certificate(chain_file=chain, key_file=key) for chain, key in pairs)
    return (Certificate(chain_file=tls.server_certificate, key_file=tls.private_key),)


# -- hosts and rules ---------------------------------------------------------------------------------------


def hosts(view: View, key: str) -> tuple[EdgeHost, ...]:
    """The hosts of an HTTP server that VirtualServices have rules for."""
    found = _find(view, key)
    if found is None:
        return ()
    gateway, server = found
    name = f"{gateway.ref.namespace}/{gateway.ref.name}"
    by_domain: dict[str, list[ConfigObject]] = {}
    for obj in objects(view, "vs-gateway", name):
        for domain in _served(view, gateway, server, obj):
            by_domain.setdefault(domain, []).append(obj)
    tls = _protocol(server) is EdgeProtocol.HTTPS
    result = []
    for domain in sorted(by_domain):
        refs = tuple(obj.ref for obj in by_domain[domain])
        source = (domain, server.port.number, name, tls, refs)
        found_rules = view.query(rules, source)
        if found_rules.rules or found_rules.provenance:
            result.append(EdgeHost((domain,), found_rules, source))
    return tuple(result)


def rules(view: View, source: tuple[str, int, str, bool, tuple[ObjectRef, ...]]) -> HttpRules:
    """The rules of some VirtualServices for a host, a port and a gateway (``namespace/name``)."""
    domain, port, gateway, tls, refs = source
    found = (view.fact("config", *ref.key) for ref in refs)
    return rules_of(
        view,
        [obj for obj in found if obj is not None],
        domain,
        port,
        gateways=frozenset({gateway}),
        tls=tls,
    )


def tcp(view: View, key: str) -> TcpRules:
    """What VirtualServices do with the connections of a TCP or TLS server."""
    found = _find(view, key)
    if found is None:
        return TcpRules(())
    gateway, server = found
    name = f"{gateway.ref.namespace}/{gateway.ref.name}"
    bound = [obj for obj in objects(view, "vs-gateway", name) if _served(view, gateway, server, obj)]
    host = server.hosts[0].rpartition("/")[2]
    found_rules = tcp_rules_of(view, bound, host, server.port.number, gateways=frozenset({name}))
    opened = server.tls is None or _MODES[server.tls.mode].is_opened
    kept = tuple(rule for rule in found_rules.rules if bool(rule.snis) is not opened)
    return TcpRules(kept, found_rules.provenance, found_rules.findings)


def _find(view: View, key: str) -> tuple[ConfigObject, GatewayServer] | None:
    namespace, name, index = key.removeprefix(PREFIX).split("/")
    obj: ConfigObject | None = view.fact("config", "Gateway", namespace, name)
    if obj is None or int(index) >= len(obj.spec.servers):
        return None
    return obj, obj.spec.servers[int(index)]


def _served(view: View, gateway: ConfigObject, server: Any, obj: ConfigObject) -> tuple[str, ...]:
    """The hosts of a VirtualService that a server serves: of each pair the narrower."""
    suffix = mesh(view).dns_suffix
    mine = [qualify(host, obj.ref.namespace, suffix) for host in obj.spec.hosts]
    found: dict[str, None] = {}
    for written in server.hosts:
        namespace, slash, host = written.rpartition("/")
        if slash and not _from(namespace, gateway, obj):
            continue
        found.update(dict.fromkeys(_narrower(host, mine)))
    return tuple(found)


def _from(namespace: str, gateway: ConfigObject, obj: ConfigObject) -> bool:
    if namespace == ".":
        return obj.ref.namespace == gateway.ref.namespace
    return namespace == "*" or own_namespace(namespace) == obj.ref.namespace


def _narrower(host: str, others: Iterable[str]) -> list[str]:
    return [found for other in others if (found := intersection(host, other))]
