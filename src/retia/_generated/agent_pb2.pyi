from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("token", "host", "csr_der", "agent_time")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    AGENT_TIME_FIELD_NUMBER: _ClassVar[int]
    token: str
    host: str
    csr_der: bytes
    agent_time: int
    def __init__(self, token: _Optional[str] = ..., host: _Optional[str] = ..., csr_der: _Optional[bytes] = ..., agent_time: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_der", "agent_time")
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    AGENT_TIME_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    agent_time: int
    def __init__(self, csr_der: _Optional[bytes] = ..., agent_time: _Optional[int] = ...) -> None: ...

class SignWorkloadRequest(_message.Message):
    __slots__ = ("workload", "csr_der", "agent_time")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    AGENT_TIME_FIELD_NUMBER: _ClassVar[int]
    workload: str
    csr_der: bytes
    agent_time: int
    def __init__(self, workload: _Optional[str] = ..., csr_der: _Optional[bytes] = ..., agent_time: _Optional[int] = ...) -> None: ...

class SignedReply(_message.Message):
    __slots__ = ("chain_pem", "bundle_pem", "controller_time", "trust_domain")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_PEM_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_TIME_FIELD_NUMBER: _ClassVar[int]
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    bundle_pem: bytes
    controller_time: int
    trust_domain: str
    def __init__(self, chain_pem: _Optional[bytes] = ..., bundle_pem: _Optional[bytes] = ..., controller_time: _Optional[int] = ..., trust_domain: _Optional[str] = ...) -> None: ...

class AgentMessage(_message.Message):
    __slots__ = ("hello", "workload", "proxy", "subscribe", "status", "heartbeat", "reply", "learned")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    PROXY_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    workload: WorkloadUpdate
    proxy: ProxyUpdate
    subscribe: Subscribe
    status: Status
    heartbeat: Heartbeat
    reply: QueryReply
    learned: Learned
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., workload: _Optional[_Union[WorkloadUpdate, _Mapping]] = ..., proxy: _Optional[_Union[ProxyUpdate, _Mapping]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., reply: _Optional[_Union[QueryReply, _Mapping]] = ..., learned: _Optional[_Union[Learned, _Mapping]] = ...) -> None: ...

class ControllerMessage(_message.Message):
    __slots__ = ("welcome", "resources", "names", "query", "mesh", "standby")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MESH_FIELD_NUMBER: _ClassVar[int]
    STANDBY_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    resources: Resources
    names: Names
    query: Query
    mesh: Mesh
    standby: Standby
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., names: _Optional[_Union[Names, _Mapping]] = ..., query: _Optional[_Union[Query, _Mapping]] = ..., mesh: _Optional[_Union[Mesh, _Mapping]] = ..., standby: _Optional[_Union[Standby, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "host", "software", "advertise_address", "gateway_port", "workloads", "proxies", "names_revision", "names_epoch", "agent_time")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    ADVERTISE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_PORT_FIELD_NUMBER: _ClassVar[int]
    WORKLOADS_FIELD_NUMBER: _ClassVar[int]
    PROXIES_FIELD_NUMBER: _ClassVar[int]
    NAMES_REVISION_FIELD_NUMBER: _ClassVar[int]
    NAMES_EPOCH_FIELD_NUMBER: _ClassVar[int]
    AGENT_TIME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    host: str
    software: str
    advertise_address: str
    gateway_port: int
    workloads: _containers.RepeatedCompositeFieldContainer[Workload]
    proxies: _containers.RepeatedCompositeFieldContainer[Proxy]
    names_revision: int
    names_epoch: str
    agent_time: int
    def __init__(self, protocol: _Optional[int] = ..., host: _Optional[str] = ..., software: _Optional[str] = ..., advertise_address: _Optional[str] = ..., gateway_port: _Optional[int] = ..., workloads: _Optional[_Iterable[_Union[Workload, _Mapping]]] = ..., proxies: _Optional[_Iterable[_Union[Proxy, _Mapping]]] = ..., names_revision: _Optional[int] = ..., names_epoch: _Optional[str] = ..., agent_time: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "software", "lease_ms", "controller_time")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_TIME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    lease_ms: int
    controller_time: int
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ..., lease_ms: _Optional[int] = ..., controller_time: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Port(_message.Message):
    __slots__ = ("number", "app_port", "protocol", "listening")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    APP_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LISTENING_FIELD_NUMBER: _ClassVar[int]
    number: int
    app_port: int
    protocol: str
    listening: bool
    def __init__(self, number: _Optional[int] = ..., app_port: _Optional[int] = ..., protocol: _Optional[str] = ..., listening: _Optional[bool] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("id", "namespace", "service_account", "service", "ports", "labels", "annotations", "published_address", "app_address", "capture", "healthy", "locality", "gateway_address", "gateway_port")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    APP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    LOCALITY_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_PORT_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    service_account: str
    service: str
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    labels: _containers.ScalarMap[str, str]
    annotations: _containers.ScalarMap[str, str]
    published_address: str
    app_address: str
    capture: str
    healthy: bool
    locality: str
    gateway_address: str
    gateway_port: int
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., service_account: _Optional[str] = ..., service: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., labels: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ..., published_address: _Optional[str] = ..., app_address: _Optional[str] = ..., capture: _Optional[str] = ..., healthy: _Optional[bool] = ..., locality: _Optional[str] = ..., gateway_address: _Optional[str] = ..., gateway_port: _Optional[int] = ...) -> None: ...

class WorkloadUpdate(_message.Message):
    __slots__ = ("workload", "removed")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    workload: Workload
    removed: str
    def __init__(self, workload: _Optional[_Union[Workload, _Mapping]] = ..., removed: _Optional[str] = ...) -> None: ...

class Upstream(_message.Message):
    __slots__ = ("local_port", "host", "port")
    LOCAL_PORT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    local_port: int
    host: str
    port: int
    def __init__(self, local_port: _Optional[int] = ..., host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Proxy(_message.Message):
    __slots__ = ("id", "kind", "workload", "outbound_address", "outbound_http_port", "outbound_tcp_port", "explicit_port", "upstreams", "inbound_port", "held", "outbound_auto_port")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_HTTP_PORT_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_TCP_PORT_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_PORT_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    INBOUND_PORT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    OUTBOUND_AUTO_PORT_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    workload: str
    outbound_address: str
    outbound_http_port: int
    outbound_tcp_port: int
    explicit_port: int
    upstreams: _containers.RepeatedCompositeFieldContainer[Upstream]
    inbound_port: int
    held: _containers.RepeatedCompositeFieldContainer[Held]
    outbound_auto_port: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., workload: _Optional[str] = ..., outbound_address: _Optional[str] = ..., outbound_http_port: _Optional[int] = ..., outbound_tcp_port: _Optional[int] = ..., explicit_port: _Optional[int] = ..., upstreams: _Optional[_Iterable[_Union[Upstream, _Mapping]]] = ..., inbound_port: _Optional[int] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ..., outbound_auto_port: _Optional[int] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("type_url", "name", "version")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    name: str
    version: str
    def __init__(self, type_url: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ProxyUpdate(_message.Message):
    __slots__ = ("proxy", "removed")
    PROXY_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    proxy: Proxy
    removed: str
    def __init__(self, proxy: _Optional[_Union[Proxy, _Mapping]] = ..., removed: _Optional[str] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("proxy", "type_url", "names", "gone")
    PROXY_FIELD_NUMBER: _ClassVar[int]
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    proxy: str
    type_url: str
    names: _containers.RepeatedScalarFieldContainer[str]
    gone: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, proxy: _Optional[str] = ..., type_url: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., gone: _Optional[_Iterable[str]] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("type_url", "name", "version", "wire", "aliases", "refs", "security")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    SECURITY_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    name: str
    version: str
    wire: bytes
    aliases: _containers.RepeatedScalarFieldContainer[str]
    refs: _containers.RepeatedCompositeFieldContainer[Ref]
    security: bool
    def __init__(self, type_url: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., wire: _Optional[bytes] = ..., aliases: _Optional[_Iterable[str]] = ..., refs: _Optional[_Iterable[_Union[Ref, _Mapping]]] = ..., security: _Optional[bool] = ...) -> None: ...

class Ref(_message.Message):
    __slots__ = ("type_url", "name")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    name: str
    def __init__(self, type_url: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Removed(_message.Message):
    __slots__ = ("type_url", "name")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    name: str
    def __init__(self, type_url: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("proxy", "resources", "removed")
    PROXY_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    proxy: str
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    removed: _containers.RepeatedCompositeFieldContainer[Removed]
    def __init__(self, proxy: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ..., removed: _Optional[_Iterable[_Union[Removed, _Mapping]]] = ...) -> None: ...

class Standby(_message.Message):
    __slots__ = ("workload", "resources", "removed", "complete")
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    workload: str
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    removed: _containers.RepeatedCompositeFieldContainer[Removed]
    complete: bool
    def __init__(self, workload: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ..., removed: _Optional[_Iterable[_Union[Removed, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("proxy", "resources", "health")
    PROXY_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    proxy: str
    resources: _containers.RepeatedCompositeFieldContainer[ResourceStatus]
    health: ProxyHealth
    def __init__(self, proxy: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[ResourceStatus, _Mapping]]] = ..., health: _Optional[_Union[ProxyHealth, _Mapping]] = ...) -> None: ...

class ResourceStatus(_message.Message):
    __slots__ = ("type_url", "name", "version", "state", "error")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    name: str
    version: str
    state: str
    error: str
    def __init__(self, type_url: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class ProxyHealth(_message.Message):
    __slots__ = ("state", "allocated_bytes", "rss_bytes", "certificate_expiry", "envoy_version", "restarts", "pid", "connected")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    ENVOY_VERSION_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    state: str
    allocated_bytes: int
    rss_bytes: int
    certificate_expiry: int
    envoy_version: str
    restarts: int
    pid: int
    connected: bool
    def __init__(self, state: _Optional[str] = ..., allocated_bytes: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., certificate_expiry: _Optional[int] = ..., envoy_version: _Optional[str] = ..., restarts: _Optional[int] = ..., pid: _Optional[int] = ..., connected: _Optional[bool] = ...) -> None: ...

class Learned(_message.Message):
    __slots__ = ("proxy", "names")
    PROXY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    proxy: str
    names: _containers.RepeatedCompositeFieldContainer[Ref]
    def __init__(self, proxy: _Optional[str] = ..., names: _Optional[_Iterable[_Union[Ref, _Mapping]]] = ...) -> None: ...

class NamePort(_message.Message):
    __slots__ = ("number", "protocol")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    number: int
    protocol: str
    def __init__(self, number: _Optional[int] = ..., protocol: _Optional[str] = ...) -> None: ...

class NameEntry(_message.Message):
    __slots__ = ("host", "vip", "ports", "endpoints")
    HOST_FIELD_NUMBER: _ClassVar[int]
    VIP_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    host: str
    vip: str
    ports: _containers.RepeatedCompositeFieldContainer[NamePort]
    endpoints: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, host: _Optional[str] = ..., vip: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[NamePort, _Mapping]]] = ..., endpoints: _Optional[_Iterable[str]] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("revision", "full", "entries", "removed", "epoch")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    revision: int
    full: bool
    entries: _containers.RepeatedCompositeFieldContainer[NameEntry]
    removed: _containers.RepeatedScalarFieldContainer[str]
    epoch: str
    def __init__(self, revision: _Optional[int] = ..., full: _Optional[bool] = ..., entries: _Optional[_Iterable[_Union[NameEntry, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., epoch: _Optional[str] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("id", "proxy", "path", "resources")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROXY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    id: int
    proxy: str
    path: str
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    def __init__(self, id: _Optional[int] = ..., proxy: _Optional[str] = ..., path: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ...) -> None: ...

class QueryReply(_message.Message):
    __slots__ = ("id", "status", "body")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    id: int
    status: int
    body: bytes
    def __init__(self, id: _Optional[int] = ..., status: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class Mesh(_message.Message):
    __slots__ = ("trust_domain", "bundle_pem")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_PEM_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    bundle_pem: bytes
    def __init__(self, trust_domain: _Optional[str] = ..., bundle_pem: _Optional[bytes] = ...) -> None: ...
