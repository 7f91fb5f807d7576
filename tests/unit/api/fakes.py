"""A backend made of dictionaries, and a server that really listens on a unix socket."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
import yaml

from retia.api import schema
from retia.api.backend import ApiError
from retia.api.server import create_app


@dataclass
class FakeBackend:
    """Implements :class:`retia.api.backend.Backend`. Documents with ``bad`` in their text are refused."""

    objects: dict[tuple[str, str, str], schema.ObjectInfo] = field(default_factory=dict)
    services: list[schema.ServiceDetail] = field(default_factory=list)
    workloads: list[schema.WorkloadInfo] = field(default_factory=list)
    proxies: list[schema.ProxyInfo] = field(default_factory=list)
    hosts: list[schema.HostInfo] = field(default_factory=list)
    info: schema.StatusInfo = field(default_factory=lambda: schema.StatusInfo(version="0.1.0"))
    deliveries: dict[str, schema.Delivery] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    fail: Exception | None = None
    revision: int = 0
    findings: list[schema.Finding] = field(default_factory=list)
    rollouts: list[schema.RolloutInfo] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    entries: list[schema.HistoryEntry] = field(default_factory=list)
    undone: schema.ApplyResult = field(default_factory=lambda: schema.ApplyResult(applied=True))
    difference: schema.DiffResult = field(default_factory=schema.DiffResult)
    explanation: schema.ExplainResult = field(
        default_factory=lambda: schema.ExplainResult(
            proxy="default/web-1", workload="default/web-1", listener="", address="", port=0
        )
    )

    async def apply(self, request: schema.ApplyRequest) -> schema.ApplyResult:
        documents, dry_run = request.documents, request.dry_run
        if request.owner:
            self.calls.append(("apply as", request.owner, request.prune, request.reason))
        self.calls.append(("apply", [d.path for d in documents], dry_run))
        if self.fail:
            raise self.fail
        findings = [
            schema.Finding(
                code="RT0001",
                level="error",
                message="unknown field",
                object="VirtualService/default/x",
                field="spec.bad",
                path=document.path,
                line=3,
                remedy="remove it",
            )
            for document in documents
            if "bad" in document.text
        ]
        if findings:
            return schema.ApplyResult(applied=False, dry_run=dry_run, findings=findings)
        items = []
        for document in documents:
            for manifest in yaml.safe_load_all(document.text):
                items.append(self._store(manifest, document.path, dry_run))
        return schema.ApplyResult(applied=not dry_run, dry_run=dry_run, items=items, revision=self.revision)

    def _store(self, manifest: dict[str, object], path: str, dry_run: bool) -> schema.ApplyItem:
        meta = manifest["metadata"]
        assert isinstance(meta, dict)
        key = (str(manifest["kind"]), str(meta.get("namespace", "default")), str(meta["name"]))
        before = self.objects.get(key)
        same = before is not None and before.manifest == manifest
        if not dry_run and not same:
            self.revision += 1
            self.objects[key] = schema.ObjectInfo(
                kind=key[0], namespace=key[1], name=key[2], revision=self.revision, manifest=manifest
            )
        action = "unchanged" if same else "configured" if before else "created"
        return schema.ApplyItem.model_validate({"object": "/".join(key), "action": action, "path": path})

    async def analyze(self, request: schema.AnalyzeRequest) -> schema.AnalyzeResult:
        self.calls.append(("analyze", [d.path for d in request.documents]))
        return schema.AnalyzeResult(findings=self.findings)

    async def history(
        self, kind: str, namespace: str, name: str, revision: int, limit: int
    ) -> schema.HistoryList:
        self.calls.append(("history", kind, namespace, name, revision, limit))
        return schema.HistoryList(items=self.entries)

    async def undo(self, request: schema.UndoRequest) -> schema.ApplyResult:
        self.calls.append(("undo", request.revision, request.dry_run, request.reason))
        if self.fail:
            raise self.fail
        return self.undone

    async def diff(self, request: schema.DiffRequest) -> schema.DiffResult:
        self.calls.append(("diff", [d.path for d in request.documents], request.full))
        return self.difference

    async def explain(self, request: schema.ExplainRequest) -> schema.ExplainResult:
        self.calls.append(("explain", request.workload, request.url, request.method, request.headers))
        return self.explanation

    async def list_objects(self, kind: str, namespace: str | None) -> list[schema.ObjectInfo]:
        self.calls.append(("list_objects", kind, namespace))
        if kind not in ("", "VirtualService", "vs", "TrafficLane"):
            raise ApiError("not_found", f"there is no kind {kind!r}")
        return [o for k, o in sorted(self.objects.items()) if namespace in (None, k[1])]

    async def get_object(self, kind: str, namespace: str, name: str) -> schema.ObjectInfo:
        self.calls.append(("get_object", kind, namespace, name))
        found = self.objects.get((kind, namespace, name))
        if found is None:
            raise ApiError("not_found", f"there is no {kind} {namespace}/{name}")
        return found

    async def delete_object(self, kind: str, namespace: str, name: str) -> schema.DeleteResult:
        await self.get_object(kind, namespace, name)
        del self.objects[kind, namespace, name]
        return schema.DeleteResult(object=f"{kind}/{namespace}/{name}")

    async def delete_documents(self, documents: Sequence[schema.Document]) -> list[schema.DeleteResult]:
        results = []
        for document in documents:
            for manifest in yaml.safe_load_all(document.text):
                meta = manifest["metadata"]
                key = (manifest["kind"], meta.get("namespace", "default"), meta["name"])
                gone = self.objects.pop(key, None)
                results.append(schema.DeleteResult(object="/".join(key), deleted=gone is not None))
        return results

    async def delivery(self, kind: str, namespace: str, name: str) -> schema.Delivery:
        key = f"{kind}/{namespace}/{name}"
        return self.deliveries.get(key, schema.Delivery(object=key))

    async def list_services(self, namespace: str | None) -> list[schema.ServiceInfo]:
        self.calls.append(("list_services", namespace))
        return [s for s in self.services if namespace in (None, s.namespace)]

    async def get_service(self, host: str) -> schema.ServiceDetail:
        for service in self.services:
            if host in (service.host, service.name, f"{service.name}.{service.namespace}"):
                return service
        raise ApiError("not_found", f"there is no service {host!r}; see 'retia services'")

    async def list_workloads(self, namespace: str | None) -> list[schema.WorkloadInfo]:
        return [w for w in self.workloads if namespace in (None, w.namespace)]

    async def list_proxies(self) -> list[schema.ProxyInfo]:
        return self.proxies

    async def get_proxy(self, proxy: str) -> schema.ProxyInfo:
        for found in self.proxies:
            if found.id == proxy:
                return found
        raise ApiError("not_found", f"there is no proxy {proxy!r}")

    async def proxy_query(self, proxy: str, path: str) -> schema.ConfigDump:
        self.calls.append(("proxy_query", proxy, path))
        return schema.ConfigDump(proxy=proxy, path=path, status=200, body=self.pages.get(path, "{}"))

    async def list_hosts(self) -> list[schema.HostInfo]:
        return self.hosts

    async def status(self) -> schema.StatusInfo:
        if self.fail:
            raise self.fail
        return self.info

    async def mesh_settings(self) -> schema.MeshSettingsInfo:
        return schema.MeshSettingsInfo()

    async def change_mesh_settings(self, change: schema.MeshSettingsChange) -> schema.MeshSettingsInfo:
        return schema.MeshSettingsInfo.model_validate(change.model_dump(exclude_none=True))

    async def list_rollouts(self, namespace: str | None) -> list[schema.RolloutInfo]:
        return [r for r in self.rollouts if namespace in (None, r.namespace)]

    async def get_rollout(self, namespace: str, name: str) -> schema.RolloutInfo:
        for each in self.rollouts:
            if (each.namespace, each.name) == (namespace, name):
                return each
        raise ApiError("not_found", f"there is no Rollout/{namespace}/{name}")

    async def command_rollout(
        self, namespace: str, name: str, request: schema.RolloutCommand
    ) -> schema.RolloutInfo:
        found = await self.get_rollout(namespace, name)
        if found.phase == "rolled-back":
            raise ApiError("conflict", f"Rollout/{namespace}/{name}: it is rolled-back")
        self.commands.append((name, request.action))
        return found

    async def create_token(self, request: schema.TokenRequest) -> schema.Token:
        self.calls.append(("create_token", request.ttl_s, request.host))
        return schema.Token(token="retia-token-1", expiry=int(time.time()) + request.ttl_s)

    async def backup(self, request: schema.BackupRequest) -> schema.BackupResult:
        self.calls.append(("backup", request.path))
        return schema.BackupResult(path=request.path, size_bytes=1234, revision=self.revision)


@contextlib.contextmanager
def serving(backend: FakeBackend, socket: Path) -> Iterator[None]:
    """The real application on a unix socket, in a thread."""
    socket.parent.mkdir(parents=True, exist_ok=True)
    config = uvicorn.Config(create_app(backend), uds=str(socket), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="fake-controller")
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.started
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(10)
