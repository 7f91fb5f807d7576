"""The HTTP API's messages: what the controller says and takes, as pydantic models.

The same models are used by the server (which publishes them as OpenAPI), by the client and by tests, so that
the three cannot drift apart. Requests refuse unknown fields; replies ignore them, so that an older command
line can read a newer controller.

Times are whole seconds since 1970 (0: unknown or never), sizes are bytes, everything else says its unit.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reply(BaseModel):
    """What the controller answers."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# -- findings and errors -------------------------------------------------------------------------------


class Finding(Reply):
    """One thing that a person should know about the configuration."""

    code: str
    level: Literal["error", "warning", "info"]
    message: str
    object: str = ""
    """``Kind/namespace/name``; empty: the whole document."""
    field: str = ""
    """A path such as ``spec.http[0].route[1].weight``; empty: the whole object."""
    path: str = ""
    """The file as the client named it; empty: unknown."""
    line: int = 0
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}: " if self.path else ""
        what = f"{self.object}: " if self.object else ""
        at = f"{self.field}: " if self.field else ""
        then = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{what}{at}{self.message}{then} [{self.code}]"


class Error(Reply):
    """The body of every answer that is not 2xx."""

    code: str
    """A stable word, one of ``retia.api.backend.STATUS``: ``invalid``, ``not_found`` and so on."""
    message: str
    """One sentence: what, where, the value, the rule, the next step."""
    findings: list[Finding] = []


# -- configuration objects -----------------------------------------------------------------------------


class Document(Request):
    """One file of YAML (one or more documents); ``path`` is what findings name it by."""

    path: str = Field(default="-", max_length=4096)
    text: str = Field(max_length=16 * 1024 * 1024)


class ApplyRequest(Request):
    documents: list[Document] = Field(max_length=10_000)
    dry_run: bool = False
    owner: str = Field(default="", max_length=253)
    """On whose behalf; an object of another owner is not touched. Empty: nobody's."""
    prune: bool = False
    """Delete the owner's objects that are in none of the documents."""
    reason: str = Field(default="", max_length=1000)
    """Remembered in the history."""


class ApplyItem(Reply):
    """What became, or with a dry run would become, of one object."""

    object: str
    """``Kind/namespace/name``."""
    action: Literal["created", "configured", "unchanged", "skipped", "deleted"]
    """``skipped``: a Kubernetes kind that is no mesh configuration; ``deleted``: pruned, or undone."""
    path: str = ""
    line: int = 0


class ApplyResult(Reply):
    """All or nothing: with any finding of level error, ``applied`` is false and nothing was stored."""

    applied: bool
    """Whether the objects are in the store now; false as well for a dry run."""
    dry_run: bool = False
    items: list[ApplyItem] = []
    findings: list[Finding] = []
    revision: int = 0


class ObjectInfo(Reply):
    """One configuration object."""

    kind: str
    namespace: str
    name: str
    revision: int = 0
    """The store's revision at which it last changed."""
    created: int = 0
    """The store's revision at which it was made: the older object wins a conflict."""
    manifest: dict[str, Any] = {}
    """As applied: apiVersion, kind, metadata, spec. ``metadata.resourceVersion`` is ``revision``: applied
    again with it, the document is refused if somebody has changed the object since."""
    findings: list[Finding] = []
    owner: str = ""
    path: str = ""
    """The file that it was applied from, as named then; empty: unknown."""
    line: int = 0


class ObjectList(Reply):
    items: list[ObjectInfo] = []


class AnalyzeRequest(Request):
    """Documents to judge as if they were applied to the mesh; none: the mesh as it is."""

    documents: list[Document] = Field(default=[], max_length=10_000)


class AnalyzeResult(Reply):
    findings: list[Finding] = []


class HistoryChange(Reply):
    """One object in one write."""

    object: str
    action: Literal["created", "configured", "deleted"]
    before: dict[str, Any] | None = None
    """The document that was replaced, where one object was asked for; ``None``: it was not there."""
    after: dict[str, Any] | None = None


class HistoryEntry(Reply):
    """One write of configuration."""

    revision: int
    time: int
    reason: str = ""
    changes: list[HistoryChange] = []


class HistoryList(Reply):
    """The newest first."""

    items: list[HistoryEntry] = []


class UndoRequest(Request):
    revision: int = Field(default=0, ge=0)
    """The write to take back; 0: the last one."""
    dry_run: bool = False
    reason: str = Field(default="", max_length=1000)


class DiffRequest(Request):
    documents: list[Document] = Field(max_length=10_000)
    full: bool = False
    """With the text of every difference."""


class ResourceDiff(Reply):
    """What would become of one resource at some proxies."""

    resource: str
    """``VHDS 9080/reviews.default.svc.cluster.local:9080``."""
    action: Literal["added", "changed", "removed"]
    objects: list[str] = []
    """What would shape it, or has shaped it: ``Kind/namespace/name``."""
    text: str = ""
    """A unified difference of its JSON, if asked for."""


class ProxyDiff(Reply):
    """Proxies for which the same would change."""

    proxies: list[str]
    resources: list[ResourceDiff] = []


class DiffResult(Reply):
    items: list[ApplyItem] = []
    groups: list[ProxyDiff] = []
    unchanged: int = 0
    """Proxies for which nothing would change."""
    findings: list[Finding] = []


class ExplainRequest(Request):
    """One call, as a program would make it."""

    workload: str = Field(min_length=1, max_length=512)
    """The caller: a workload, a service (any instance of it), a version of one, or a proxy."""
    url: str = Field(min_length=1, max_length=8192)
    """``http://reviews:9080/x``; ``tcp://db:5432`` for a connection without HTTP."""
    method: str = Field(default="GET", max_length=32, pattern=r"^[A-Za-z][A-Za-z-]*$")
    headers: list[tuple[str, str]] = Field(default=[], max_length=200)


class ExplainObject(Reply):
    """An object on the path, and where it was written."""

    object: str
    path: str = ""
    line: int = 0


class ExplainResource(Reply):
    """A resource that the answer was read from."""

    resource: str
    version: str = ""
    state: Literal["acked", "pending", "nacked", "quarantined", "not asked for", "absent"]
    """``not asked for``: the proxy does not have it yet and would ask for it with this call."""
    error: str = ""


class ExplainHop(Reply):
    """One proxy of the path."""

    proxy: str
    title: str
    lines: list[str] = []
    """What it does, for people."""
    data: dict[str, Any] = {}
    """The same, for programs."""
    resources: list[ExplainResource] = []


class ExplainArrival(Reply):
    """What a callee's proxy does with a call that it does not pass on to its application."""

    proxy: str
    refused: str = ""
    """Why it closes the connection; empty: it answers."""
    status: list[int] = []
    """The statuses that it answers with; empty: none, it closes the connection."""


class ExplainResult(Reply):
    proxy: str
    workload: str
    listener: str
    address: str
    port: int
    http: bool = True
    send_to: str = ""
    """``address:port`` of the proxy's listener where the call enters it."""
    send_as: Literal["captured", "proxy", ""] = ""
    hops: list[ExplainHop] = []
    objects: list[ExplainObject] = []
    status: list[int] = []
    """The statuses that the proxy itself may answer with; empty: the callee answers."""
    clusters: dict[str, float] = {}
    """Where the call may go, with shares; empty: nowhere."""
    endpoints: dict[str, str] = {}
    """``address:port`` to the workload there, as far as known."""
    refused: str = ""
    """Why the proxy closes the connection by itself; empty: it does not."""
    arrivals: dict[str, ExplainArrival] = {}
    """By cluster, where the callee's proxy does not pass the call on."""
    certain: bool = True
    """False: a part could not be interpreted, or a resource is not acknowledged yet."""
    notes: list[str] = []


class DeleteResult(Reply):
    object: str
    deleted: bool = True


class DeliveryProxy(Reply):
    """How far one proxy is with the resources that came from an object."""

    proxy: str
    resource: str
    """``CDS outbound|9080||reviews.default.svc.cluster.local``."""
    wanted: str
    """The version that the controller serves."""
    acked: str = ""
    """The version that the proxy holds; empty: none yet."""
    state: Literal["acked", "pending", "nacked", "quarantined"]
    error: str = ""


class Delivery(Reply):
    """Which proxies hold what one object shaped; proxies that never asked for any of it are not listed."""

    object: str
    acked: int = 0
    pending: int = 0
    nacked: int = 0
    proxies: list[DeliveryProxy] = []


# -- the mesh's inventory ------------------------------------------------------------------------------


class ServicePortInfo(Reply):
    number: int
    protocol: str
    name: str = ""
    target_port: int = 0


class EndpointInfo(Reply):
    service_port: int
    address: str
    port: int
    wire: str
    workload: str = ""
    host: str = ""
    identity: str = ""
    labels: dict[str, str] = {}
    weight: int = 1


class ServiceInfo(Reply):
    host: str
    """The fully qualified name."""
    namespace: str
    name: str
    vip: str = ""
    ports: list[ServicePortInfo] = []
    endpoints: int = 0
    """Instances that are registered and callable."""
    external: bool = False
    origin: str = ""
    """``Kind/namespace/name`` of the object that made it; empty: made by ``retia run``."""
    mtls: str = ""
    """The mode that its workloads enforce: ``strict``, ``permissive``, ``disable``; empty: no workloads."""


class ServiceDetail(ServiceInfo):
    endpoint_list: list[EndpointInfo] = []


class ServiceList(Reply):
    items: list[ServiceInfo] = []


class WorkloadPortInfo(Reply):
    number: int
    app_port: int
    protocol: str
    listening: bool = True


class WorkloadInfo(Reply):
    id: str
    """``<namespace>/<name>``."""
    namespace: str
    service: str = ""
    version: str = ""
    service_account: str = ""
    identity: str = ""
    host: str = ""
    ports: list[WorkloadPortInfo] = []
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    published_address: str = ""
    app_address: str = ""
    capture: str = ""
    healthy: bool = True
    state: Literal["ready", "starting", "unhealthy", "lost"] = "ready"
    """``starting``: registered, its application does not listen yet; ``lost``: its host's lease lapsed and
    it is held back."""


class WorkloadList(Reply):
    items: list[WorkloadInfo] = []


class TypeSync(Reply):
    """How one resource type stands at one proxy."""

    type: str
    """``CDS``, ``EDS``, ``LDS``, ``RDS``, ``VHDS``, ``SDS``."""
    wanted: int = 0
    """Resources that the proxy subscribes to."""
    acked: int = 0
    """Of those, acknowledged at the version that the controller serves now."""
    version: str = ""
    """One hash over the acknowledged versions: equal at two proxies that hold the same."""

    @property
    def synced(self) -> bool:
        return self.acked >= self.wanted


class Nack(Reply):
    """One resource that a proxy refused."""

    resource: str
    version: str = ""
    error: str
    object: str = ""
    """The object that shaped it, as far as known."""
    field: str = ""


class ProxyInfo(Reply):
    id: str
    kind: str = "sidecar"
    workload: str = ""
    host: str = ""
    state: str = "unknown"
    """``ready``, ``starting``, ``draining``, ``down``; ``lost``: its host is silent;
    ``unknown``: nothing was said yet."""
    connected: bool = False
    """Its xDS stream to its host's agent is open."""
    sync: list[TypeSync] = []
    nacks: list[Nack] = []
    certificate_expiry: int = 0
    allocated_bytes: int = 0
    rss_bytes: int = 0
    restarts: int = 0
    envoy_version: str = ""
    pid: int = 0

    @property
    def synced(self) -> bool:
        return self.connected and not self.nacks and all(s.synced for s in self.sync)


class ProxyList(Reply):
    items: list[ProxyInfo] = []


class HostInfo(Reply):
    id: str
    advertise_address: str = ""
    gateway_port: int = 0
    software: str = ""
    """The agent's version."""
    protocol: int = 0
    connected: bool = False
    lease: Literal["valid", "lapsed", "held"] = "valid"
    """``held``: lapsed, and its endpoints are kept because too many lapsed at once or the controller has
    just started."""
    last_seen: int = 0
    clock_skew_s: float = 0.0
    """The agent's clock minus the controller's."""
    certificate_expiry: int = 0
    workloads: int = 0
    proxies: int = 0


class HostList(Reply):
    items: list[HostInfo] = []


# -- the controller itself -----------------------------------------------------------------------------


class Certificate(Reply):
    subject: str
    expiry: int
    fingerprint: str = ""


class StatusInfo(Reply):
    """The controller's own health."""

    version: str
    api: int = 1
    protocol: int = 1
    """The highest agent protocol that it speaks."""
    ready: bool = True
    started: int = 0
    time: int = 0
    """The controller's clock, to notice skew."""
    pid: int = 0
    home: str = ""
    mesh_index: int = 0
    xds_address: str = ""
    revision: int = 0
    """The store's revision."""
    snapshot: int = 0
    registry_frozen: bool = False
    registry_reason: str = ""
    """Why no endpoint is withdrawn at the moment."""
    registry_until: int = 0
    authority: list[Certificate] = []
    """The root first, then what signs."""
    objects: int = 0
    services: int = 0
    workloads: int = 0
    proxies: int = 0
    hosts: int = 0
    counters: dict[str, float] = {}
    """For example ``resources_recomputed``, ``resources_changed``, ``pushes``, ``rss_bytes``."""
    findings: list[Finding] = []
    """Problems of the whole configuration, ``error`` first."""


class MeshSettingsInfo(Reply):
    trust_domain: str = "cluster.local"
    dns_suffix: str = "svc.cluster.local"
    connect_timeout_s: float = 10.0
    default_retries: int = 2
    protocol_detection_timeout_s: float = 0.2
    outbound_allow_any: bool = True
    retry_budget_percent: float = 20.0
    """Retries under way to one destination, as a share of its requests under way; 0: no limit."""
    retry_budget_minimum: int = 50
    """So many retries at once are allowed whatever the share is."""
    upgrade_to_http2: bool = False
    dns_refresh_s: float = 60.0
    access_log_file: str = ""
    """Empty: proxies log no requests."""
    access_log_format: str = ""
    """Empty: Istio's."""
    access_log_json: bool = False


class MeshSettingsChange(Request):
    """Absent fields stay as they are."""

    connect_timeout_s: float | None = Field(default=None, gt=0, le=3600)
    default_retries: int | None = Field(default=None, ge=0, le=100)
    protocol_detection_timeout_s: float | None = Field(default=None, ge=0, le=60)
    outbound_allow_any: bool | None = None
    retry_budget_percent: float | None = Field(default=None, ge=0, le=100)
    retry_budget_minimum: int | None = Field(default=None, ge=1, le=1_000_000)
    upgrade_to_http2: bool | None = None
    dns_refresh_s: float | None = Field(default=None, ge=1, le=86_400)
    access_log_file: str | None = Field(default=None, max_length=4096)
    access_log_format: str | None = Field(default=None, max_length=16_384)
    access_log_json: bool | None = None


class RolloutStepInfo(Reply):
    weight: int
    """Percent of requests for the canary."""
    hold_s: float = 0.0
    pause: bool = False


class RolloutInfo(Reply):
    """How far a rollout has come."""

    namespace: str
    name: str
    service: str
    phase: Literal["progressing", "paused", "promoted", "rolled-back", "aborted"]
    step: int
    """Counts from 1."""
    steps: list[RolloutStepInfo]
    weight: int
    """Percent of requests for the canary now."""
    reason: str = ""
    """Why the phase is what it is."""
    waiting: str = ""
    """What the current step waits for; empty: for nothing."""
    changed: int
    """When phase, step or weight changed last."""
    requests: int = 0
    """Answered by the canary in this step, as far as gates need them counted."""
    failures: int = 0
    success_percent: float | None = None
    latency_ms: float | None = None
    """The percentile that the latency gate names."""
    percentile: float | None = None


class RolloutList(Reply):
    items: list[RolloutInfo] = []


class RolloutCommand(Request):
    action: Literal["promote", "abort", "pause", "resume", "restart"]


class TokenRequest(Request):
    ttl_s: int = Field(default=3600, ge=1, le=7 * 24 * 3600)
    """How long the token may be used, once, to join."""
    host: str = Field(default="", max_length=253)
    """The only host id that may use it; empty: any."""


class Token(Reply):
    token: str
    expiry: int
    controller: str = ""
    """The address that agents on other hosts dial; empty: the controller listens on loopback only."""


class BackupRequest(Request):
    path: str = Field(min_length=1, max_length=4096)
    """Where the controller writes the archive, absolute; it must not exist yet. Mode 0600: it holds the
    authority's keys."""


class BackupResult(Reply):
    path: str
    size_bytes: int
    revision: int
    objects: int = 0


class ConfigDump(Reply):
    """What an Envoy says about itself."""

    proxy: str
    path: str
    status: int
    body: str
