from __future__ import annotations

from retia.control.standby import ChangeLog, concerns, names_for
from retia.model.ids import Host, HostId, Namespace, ProxyId
from retia.model.mesh import Protocol, Proxy, ProxyKind, Service, ServicePort
from retia.model.resource import Name, TypeUrl

CDS, VHDS = TypeUrl.CLUSTER, TypeUrl.VIRTUAL_HOST


def proxy(kind: ProxyKind = ProxyKind.SIDECAR, explicit_port: int = 0) -> Proxy:
    return Proxy(ProxyId("p"), kind, Namespace("default"), "a", HostId("h"), explicit_port=explicit_port)


def service(protocol: Protocol) -> Service:
    return Service(Host("a.x"), Namespace("x"), "a", (ServicePort(80, protocol),), vip="240.240.0.1")


def names(protocol: Protocol, **how: int) -> list[str]:
    return [str(n) for n in names_for(proxy(**how), [service(protocol)])]


def test_each_protocol_has_the_names_that_a_proxy_would_ask_for() -> None:
    assert names(Protocol.HTTP) == ["VHDS 80/a.x:80"]
    assert names(Protocol.TCP) == ["CDS tcp|240.240.0.1:80"]
    assert names(Protocol.AUTO) == ["VHDS 80/a.x:80", "CDS tcp|240.240.0.1:80"]
    assert names(Protocol.HTTP, explicit_port=15001) == ["VHDS explicit/a.x:80"]


def test_a_gateway_has_no_copy() -> None:
    assert list(names_for(proxy(ProxyKind.HOST_GATEWAY), [service(Protocol.HTTP)])) == []


def test_the_log_tells_what_changed_since() -> None:
    log = ChangeLog()
    log.note([Name(CDS, "a"), Name(CDS, "b")], [Host("h")])
    at = log.revision
    log.note([Name(CDS, "b"), Name(CDS, "c"), Name(VHDS, "*"), Name(VHDS, "80/_")], [])
    assert set(log.names_since(at)) == {Name(CDS, "b"), Name(CDS, "c")}
    assert log.hosts_since(at) == []
    assert log.hosts_since(at - 1) == [Host("h")]


def test_the_log_knows_listeners_within_the_proxy_and_no_others() -> None:
    log = ChangeLog()
    log.note([Name(TypeUrl.LISTENER, "240.240.0.1_5432"), Name(TypeUrl.LISTENER, "inbound")], [])
    assert log.names_since(1) == [Name(TypeUrl.LISTENER, "240.240.0.1_5432")]


def test_names_of_other_proxies_are_passed_over() -> None:
    assert not concerns(proxy(), Name(CDS, "inbound|80||"))
    assert not concerns(proxy(), Name(VHDS, "explicit/a:80"))
    assert concerns(proxy(explicit_port=1), Name(VHDS, "explicit/a:80"))
