"""The HTTP API's answers: :class:`retia.api.backend.Backend` over the controller.

What is said of proxies comes from what they acknowledged, never from what was meant for them.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections import defaultdict
from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from retia import __version__
from retia.analysis.files import by_place
from retia.api import schema
from retia.api.backend import ApiError
from retia.authority.authority import Authority
from retia.authority.errors import AuthorityError
from retia.authority.tokens import Tokens
from retia.config.kinds import KINDS
from retia.config.parse import namespace_of
from retia.control import delivery, mesh_settings, rendering
from retia.control.analysing import Analysing, unsaid
from retia.control.configuration import Configuration
from retia.control.core import Core
from retia.control.editing import Editing, reading
from retia.control.explaining import Explaining
from retia.control.preview import diff
from retia.control.registry import HostState, ProxyState
from retia.control.rollouts import Rollouts, Unknown
from retia.control.session import PROTOCOL, Unavailable
from retia.control.status import CLASS_REF, Statuses, default_class
from retia.identity.spiffe import IdentityError, parse_host_id
from retia.model.finding import Finding, Level
from retia.model.ids import Host, Namespace, expansions
from retia.model.mesh import MeshSettings, Service
from retia.model.objects import ObjectRef
from retia.model.snapshot import PlainView
from retia.policy.authn import port_mode
from retia.policy.rollout import Command, NotPossible
from retia.sources import backup
from retia.sources.errors import StoreError
from retia.sources.space import Space
from retia.sources.store import Store

MAX_FINDINGS = 500
_ORDER = {Level.ERROR: 0, Level.WARNING: 1, Level.INFO: 2}


class ControlBackend:
    """Implements the protocol; made by :mod:`retia.control.main`."""

    def __init__(
        self,
        core: Core,
        store: Store,
        configuration: Configuration,
        authority: Authority,
        tokens: Tokens,
        rollouts: Rollouts,
        started: float,
    ) -> None:
        self._core = core
        self._store = store
        self._configuration = configuration
        self._authority = authority
        self._tokens = tokens
        self._rollouts = rollouts
        self._started = started
        self._analysing = Analysing(core)
        self._editing = Editing(core, store, configuration, self._analysing)
        self._explaining = Explaining(core, store, configuration)
        self._statuses = Statuses(core)

    # -- configuration -------------------------------------------------------------------------------------

    async def apply(self, request: schema.ApplyRequest) -> schema.ApplyResult:
        return await self._editing.apply(request)

    async def analyze(self, request: schema.AnalyzeRequest) -> schema.AnalyzeResult:
        if not request.documents:
            live = await self._findings()
            return schema.AnalyzeResult(findings=[rendering.finding_of(f) for f in live])
        parsed = await self._editing.parse(request.documents)
        found = by_place([*parsed.findings, *await self._analysing.as_if(parsed)])
        return schema.AnalyzeResult(findings=[rendering.finding_of(f) for f in found])

    async def history(
        self, kind: str, namespace: str, name: str, revision: int, limit: int
    ) -> schema.HistoryList:
        if bool(kind) != bool(name):
            raise ApiError("invalid", "give both kind and name, or neither")
        ref = self._ref(kind, namespace, name) if kind else None
        return await self._editing.history(ref, revision, limit)

    async def undo(self, request: schema.UndoRequest) -> schema.ApplyResult:
        return await self._editing.undo(request)

    async def diff(self, request: schema.DiffRequest) -> schema.DiffResult:
        return await diff(self._core, self._editing, request)

    async def explain(self, request: schema.ExplainRequest) -> schema.ExplainResult:
        return await self._explaining.explain(request)

    async def list_objects(self, kind: str, namespace: str | None) -> list[schema.ObjectInfo]:
        name = self._kind(kind) if kind else ""
        listing = await reading(lambda: self._store.list(name, namespace_of(namespace or "")))
        found = {o.ref: o for o in listing.objects}
        directory = self._configuration.directory
        if directory is not None:
            for each in directory.list(name, namespace_of(namespace or "")).objects:
                found.setdefault(each.ref, each)
        if name == CLASS_REF.kind:
            found.setdefault(CLASS_REF, default_class())
        ordered = sorted(found.values(), key=lambda o: (o.ref.namespace, o.ref.name, o.ref.kind))
        about: defaultdict[ObjectRef | None, list[Finding]] = defaultdict(list)
        for finding in await self._findings():
            about[finding.ref].append(finding)
        return [rendering.object_of(o, about.get(o.ref, ()), self._statuses.of(o)) for o in ordered]

    async def get_object(self, kind: str, namespace: str, name: str) -> schema.ObjectInfo:
        ref = self._ref(kind, namespace, name)
        stored = await reading(lambda: self._store.get(ref))
        if stored is None and self._configuration.directory is not None:
            stored = self._configuration.directory.get(ref)
        if stored is None and ref == CLASS_REF:
            stored = default_class()
        if stored is None:
            raise ApiError("not_found", f"there is no {ref}")
        findings = [f for f in await self._findings() if f.ref == ref]
        return rendering.object_of(stored, findings, self._statuses.of(stored))

    async def delete_object(self, kind: str, namespace: str, name: str) -> schema.DeleteResult:
        ref = self._ref(kind, namespace, name)
        if await reading(lambda: self._store.get(ref)) is None:
            directory = self._configuration.directory
            if directory is not None and directory.get(ref) is not None:
                raise ApiError(
                    "conflict", f"{ref} comes from {directory.origin(ref).path}; remove it from that file"
                )
            raise ApiError("not_found", f"there is no {ref}")
        await self._editing.delete([ref])
        return schema.DeleteResult(object=str(ref))

    async def delete_documents(self, documents: Sequence[schema.Document]) -> list[schema.DeleteResult]:
        parsed = await self._editing.parse(documents)
        if not parsed.ok:
            findings = [rendering.finding_of(f) for f in parsed.findings]
            raise ApiError("invalid", "the documents have errors; nothing was deleted", findings)
        written = await self._editing.delete([d.ref for d in parsed.documents])
        return [
            schema.DeleteResult(object=str(r.ref), deleted=r.outcome == "deleted") for r in written.results
        ]

    async def delivery(self, kind: str, namespace: str, name: str) -> schema.Delivery:
        ref = self._ref(kind, namespace, name)
        if ref not in self._core.pipeline.facts.objects and ref != CLASS_REF:
            raise ApiError("not_found", f"there is no {ref}")
        items = await delivery.of_object(self._core, ref)
        return schema.Delivery(
            object=str(ref),
            acked=sum(i.state == "acked" for i in items),
            pending=sum(i.state == "pending" for i in items),
            nacked=sum(i.state in ("nacked", "quarantined") for i in items),
            proxies=[
                schema.DeliveryProxy(
                    proxy=i.proxy,
                    resource=str(i.name),
                    wanted=i.wanted,
                    acked=i.acked,
                    state=i.state,  # type: ignore[arg-type]
                    error=i.error,
                )
                for i in items
            ],
        )

    # -- inventory -----------------------------------------------------------------------------------------

    async def list_services(self, namespace: str | None) -> list[schema.ServiceInfo]:
        services = self._core.pipeline.facts.services.values()
        chosen = [s for s in services if namespace is None or s.namespace == namespace]
        modes: dict[Hashable, str] = {}
        ordered = sorted(chosen, key=lambda s: (s.namespace, s.name, s.host))
        return [self._service(s, modes) for s in ordered]

    async def get_service(self, host: str) -> schema.ServiceDetail:
        facts = self._core.pipeline.facts
        suffix = self._settings.dns_suffix
        for candidate in expansions(host.lower(), "default", suffix):
            service = facts.services.get(Host(candidate))
            if service is not None:
                info = self._service(service, {})
                endpoints = [rendering.endpoint_of(e) for e in facts.endpoints(service.host)]
                return schema.ServiceDetail(**info.model_dump(), endpoint_list=endpoints)
        raise ApiError("not_found", f"there is no service {host!r}; 'retia services' lists them")

    async def list_workloads(self, namespace: str | None) -> list[schema.WorkloadInfo]:
        found: list[schema.WorkloadInfo] = []
        for host in self._core.registry.hosts.values():
            lease = self._core.registry.leases.state(host.id, self._core.clock.monotonic())
            found += [
                rendering.workload_of(w, self._core.trust_domain, lease)
                for w in host.workloads.values()
                if namespace is None or w.namespace == namespace
            ]
        return sorted(found, key=lambda w: w.id)

    async def list_proxies(self) -> list[schema.ProxyInfo]:
        found = []
        for host, proxy in list(self._core.registry.all_proxies()):
            found.append(rendering.proxy_of(self._core, host, proxy))
            await asyncio.sleep(0)
        return sorted(found, key=lambda p: p.id)

    async def get_proxy(self, proxy: str) -> schema.ProxyInfo:
        host, state = self._proxy(proxy)
        return rendering.proxy_of(self._core, host, state)

    async def proxy_query(self, proxy: str, path: str) -> schema.ConfigDump:
        host, state = self._proxy(proxy)
        session = self._core.sessions.get(host.id)
        if session is None:
            raise ApiError("unavailable", f"host {host.id} is not connected, so {proxy} can't be asked")
        try:
            reply = await session.query(state.proxy.id, path)
        except Unavailable as error:
            raise ApiError("timeout", str(error)) from error
        return schema.ConfigDump(
            proxy=state.proxy.id,
            path=path,
            status=reply.status,
            body=reply.body.decode("utf-8", errors="replace"),
        )

    async def list_hosts(self) -> list[schema.HostInfo]:
        hosts = self._core.registry.hosts
        return [rendering.host_of(self._core, hosts[name]) for name in sorted(hosts)]

    # -- the controller ------------------------------------------------------------------------------------

    async def _findings(self) -> list[Finding]:
        """All that is wrong with the configuration as it is."""
        found = [
            *self._configuration.findings(),
            *await self._analysing.now(),
            *self._core.patches.findings(),
        ]
        return [*found, *unsaid(await self._analysing.of_proxies(), found)]

    async def status(self) -> schema.StatusInfo:
        core, registry = self._core, self._core.registry
        now = core.clock.now()
        held = registry.leases.held(core.clock.monotonic()) and bool(registry.hosts)
        left = registry.leases.held_until - core.clock.monotonic()
        findings = await self._findings()
        findings.sort(key=lambda f: (_ORDER[f.level], str(f.ref)))
        return schema.StatusInfo(
            version=__version__,
            protocol=PROTOCOL,
            ready=True,
            started=int(self._started),
            time=int(now),
            pid=os.getpid(),
            home=str(core.settings.home),
            mesh_index=core.settings.index,
            xds_address=f"{core.settings.listen}:{core.settings.xds_port}",
            revision=self._configuration.revision,
            snapshot=core.pipeline.engine.snapshot.revision,
            registry_frozen=held,
            registry_reason=registry.leases.reason if held else "",
            registry_until=int(now + left) if held else 0,
            authority=self._certificates(),
            objects=len(core.pipeline.facts.objects),
            services=len(core.pipeline.facts.services),
            workloads=len(core.pipeline.facts.workloads),
            proxies=sum(len(h.proxies) for h in registry.hosts.values()),
            hosts=len(registry.hosts),
            counters=counters(core),
            findings=[rendering.finding_of(f) for f in findings[:MAX_FINDINGS]],
        )

    async def mesh_settings(self) -> schema.MeshSettingsInfo:
        return rendering.mesh_of(self._core.pipeline.facts.settings)

    async def change_mesh_settings(self, change: schema.MeshSettingsChange) -> schema.MeshSettingsInfo:
        before = self._core.pipeline.facts.own_settings
        settings = mesh_settings.changed(before, change.model_dump(exclude_none=True))
        space = Space(self._store, mesh_settings.SPACE)
        try:
            await asyncio.to_thread(mesh_settings.save, space, settings)
        except StoreError as error:
            raise ApiError("unavailable", f"the settings can't be written: {error}") from error
        self._core.pipeline.facts.put_settings(settings)
        self._core.pipeline.touch()
        return rendering.mesh_of(self._core.pipeline.facts.settings)

    # -- rollouts ------------------------------------------------------------------------------------------

    async def list_rollouts(self, namespace: str | None) -> list[schema.RolloutInfo]:
        return [rendering.rollout_of(s) for s in await self._rollouts.statuses(namespace)]

    async def get_rollout(self, namespace: str, name: str) -> schema.RolloutInfo:
        try:
            return rendering.rollout_of(await self._rollouts.status(namespace_of(namespace), name))
        except Unknown as error:
            raise ApiError("not_found", str(error)) from error
        except StoreError as error:
            raise ApiError("unavailable", f"the rollout's state can't be written: {error}") from error

    async def command_rollout(
        self, namespace: str, name: str, request: schema.RolloutCommand
    ) -> schema.RolloutInfo:
        try:
            given = Command(request.action)
            status = await self._rollouts.command(namespace_of(namespace), name, given)
        except Unknown as error:
            raise ApiError("not_found", str(error)) from error
        except NotPossible as error:
            raise ApiError("conflict", f"Rollout/{namespace}/{name}: {error}") from error
        except StoreError as error:
            raise ApiError("unavailable", f"the rollout's state can't be written: {error}") from error
        return rendering.rollout_of(status)

    async def create_token(self, request: schema.TokenRequest) -> schema.Token:
        now = datetime.fromtimestamp(self._core.clock.now(), UTC)
        ttl = timedelta(seconds=request.ttl_s)
        try:
            if request.host:
                parse_host_id(request.host)
            token = await asyncio.to_thread(self._tokens.issue, now, ttl, request.host)
        except IdentityError as error:
            raise ApiError("invalid", str(error)) from error
        except (AuthorityError, StoreError) as error:
            raise ApiError("unavailable", str(error)) from error
        return schema.Token(
            token=token.encode(),
            expiry=int((now + ttl).timestamp()),
            controller=self._core.settings.join_address,
        )

    async def backup(self, request: schema.BackupRequest) -> schema.BackupResult:
        path = Path(request.path)
        if not path.is_absolute():
            raise ApiError("invalid", f"path {request.path!r}: an absolute path is needed")
        now = datetime.fromtimestamp(self._core.clock.now(), UTC)
        try:
            made, size = await asyncio.to_thread(_save, self._core.settings.state, path, now)
        except (backup.BackupError, OSError) as error:
            raise ApiError("conflict" if "exists" in str(error) else "unavailable", str(error)) from error
        return schema.BackupResult(
            path=str(path), size_bytes=size, revision=made.revision, objects=made.objects
        )

    # -- parts -------------------------------------------------------------------------------------------

    @property
    def _settings(self) -> MeshSettings:
        found: MeshSettings | None = self._core.pipeline.engine.snapshot.get(("mesh",))
        return found or MeshSettings(trust_domain=self._core.trust_domain)

    def _kind(self, text: str) -> str:
        kind = rendering.kind_of(text)
        if kind is None:
            known = rendering.known_kinds()
            raise ApiError("not_found", f"there is no kind {text!r}; known are {known}")
        return kind

    def _ref(self, kind: str, namespace: str, name: str) -> ObjectRef:
        """An object of no namespace is found under any; ``-`` stands for none."""
        known = self._kind(kind)
        inside = KINDS[known].namespaced
        return ObjectRef(known, namespace_of(namespace) if inside else Namespace(""), name)

    def _proxy(self, proxy: str) -> tuple[HostState, ProxyState]:
        found = self._core.registry.proxy(proxy)
        if found is None and "/" not in proxy:
            found = self._core.registry.proxy(f"default/{proxy}")
        if found is None:
            raise ApiError("not_found", f"there is no proxy {proxy!r}; 'retia proxies' lists them")
        return found

    def _service(self, service: Service, modes: dict[Hashable, str]) -> schema.ServiceInfo:
        endpoints = self._core.pipeline.facts.endpoints(service.host)
        workloads = {e.workload for e in endpoints if e.workload}
        count = len(workloads) or len(endpoints)
        return rendering.service_of(service, count, self._mtls(service, modes))

    def _mtls(self, service: Service, modes: dict[Hashable, str]) -> str:
        """The mode that the service's workloads enforce; the laxest where they differ. ``modes`` remembers
        those that were looked up."""
        facts = self._core.pipeline.facts
        found: set[str] = set()
        for endpoint in facts.endpoints(service.host):
            workload = facts.workloads.get(endpoint.workload) if endpoint.workload else None
            if workload is None or self._core.registry.proxy(workload.id) is None:
                continue
            key = (workload.namespace, workload.labels, endpoint.app_port)
            if key not in modes:
                proxy = self._core.registry.proxy(workload.id)
                assert proxy is not None
                view = PlainView(self._core.pipeline.engine.snapshot, proxy[1].proxy)
                modes[key] = str(port_mode(view, key).mode)
            found.add(modes[key])
        return next((m for m in ("disable", "permissive", "strict", "refuse") if m in found), "")

    def _certificates(self) -> list[schema.Certificate]:
        root, issuer = self._authority.root_life, self._authority.life
        return [
            schema.Certificate(
                subject=f"root of {self._core.trust_domain}",
                expiry=int(root.not_after.timestamp()),
                fingerprint=self._authority.fingerprint.hex(),
            ),
            schema.Certificate(
                subject=f"authority of {self._core.trust_domain}", expiry=int(issuer.not_after.timestamp())
            ),
        ]


def counters(core: Core) -> dict[str, float]:
    """What the controller has done, as numbers."""
    pipeline, engine = core.pipeline.counters, core.pipeline.engine
    return {
        "snapshots": pipeline.snapshots,
        "facts_changed": pipeline.facts_changed,
        "names_affected": pipeline.names_affected,
        "watchers_notified": pipeline.notified,
        "snapshot_last_s": round(pipeline.last_s, 6),
        "resources_recomputed": engine.counters.resources_built,
        "queries_run": engine.counters.queries_run,
        "cache_hits": engine.counters.hits,
        "snapshot_failures": pipeline.failures,
        "build_failures": engine.counters.failures,
        "resources_cached": engine.size,
        "names": len(core.names),
        "quarantined": len(core.quarantine.refusals),
        "sessions": len(core.sessions),
        "rss_bytes": _rss_bytes(),
    }


def _save(state: Path, target: Path, now: datetime) -> tuple[backup.Manifest, int]:
    """Writes a backup; what it says of itself, and its size in bytes."""
    return backup.write(state, target, __version__, now), target.stat().st_size


def _rss_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
