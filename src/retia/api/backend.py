"""What the HTTP API needs from whoever knows the mesh.

The controller implements :class:`Backend`; tests implement it with a dictionary. The server above it only
checks shapes, bounds sizes and turns :class:`ApiError` into the one error form.

Every method must answer within a bound of its own choosing; the server gives up after 30 s. Cancelling a call
leaves the mesh either as it was or as if the call had completed, never between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from retia.api import schema


class ApiError(Exception):
    """A refusal that the caller should read. ``code`` is one of :data:`STATUS`."""

    def __init__(self, code: str, message: str, findings: Sequence[schema.Finding] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.findings = list(findings)


STATUS = {
    "invalid": 400,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "internal": 500,
    "unavailable": 503,
    "timeout": 504,
}
"""The HTTP status of each error code."""


class Backend(Protocol):
    """The mesh, asked and told. ``namespace=None`` means all namespaces; lists are sorted."""

    async def apply(self, request: schema.ApplyRequest) -> schema.ApplyResult:
        """Stores all objects or none. Wrong configuration is not an :class:`ApiError`: the result then has
        ``applied=False`` and the findings of all documents. ``conflict``: somebody changed an object since
        the ``resourceVersion`` of its document, or it belongs to another owner."""

    async def analyze(self, request: schema.AnalyzeRequest) -> schema.AnalyzeResult:
        """What is wrong with the documents in this mesh, or with the mesh itself; nothing is stored."""

    async def history(
        self, kind: str, namespace: str, name: str, revision: int, limit: int
    ) -> schema.HistoryList:
        """The last writes; with a kind and name those of one object with its documents before and after, with
        a revision that one with all its documents."""

    async def undo(self, request: schema.UndoRequest) -> schema.ApplyResult:
        """Makes every object of one write what it was before. ``conflict``: one has changed since."""

    async def diff(self, request: schema.DiffRequest) -> schema.DiffResult:
        """What applying the documents would change in the proxies; nothing is stored."""

    async def explain(self, request: schema.ExplainRequest) -> schema.ExplainResult:
        """What becomes of a call, by the configuration that proxies have acknowledged."""

    async def list_objects(self, kind: str, namespace: str | None) -> list[schema.ObjectInfo]:
        """Objects of a kind, sorted by namespace and name. ``kind`` is spelt by its user: any case, plural or
        short name (``vs``, ``virtualservices``); empty: every kind. ``not_found``: no such kind."""

    async def get_object(self, kind: str, namespace: str, name: str) -> schema.ObjectInfo:
        """One object; ``not_found`` where there is none."""

    async def delete_object(self, kind: str, namespace: str, name: str) -> schema.DeleteResult:
        """Removes one object; ``not_found`` where there is none."""

    async def delete_documents(self, documents: Sequence[schema.Document]) -> list[schema.DeleteResult]:
        """Removes all objects that the documents name; those that are not there have ``deleted=False``."""

    async def delivery(self, kind: str, namespace: str, name: str) -> schema.Delivery:
        """Which proxies hold what the object shaped."""

    async def list_services(self, namespace: str | None) -> list[schema.ServiceInfo]: ...

    async def get_service(self, host: str) -> schema.ServiceDetail:
        """By any spelling that resolves: ``reviews``, ``reviews.default``, the full name."""

    async def list_workloads(self, namespace: str | None) -> list[schema.WorkloadInfo]: ...

    async def list_proxies(self) -> list[schema.ProxyInfo]: ...

    async def get_proxy(self, proxy: str) -> schema.ProxyInfo: ...

    async def proxy_query(self, proxy: str, path: str) -> schema.ConfigDump:
        """Asks an Envoy's admin interface, through its host's agent. ``path`` is one of the read-only pages
        with a slash before it (``/config_dump``, ``/clusters?format=json``, ``/stats``, and so on)."""

    async def list_hosts(self) -> list[schema.HostInfo]: ...

    async def status(self) -> schema.StatusInfo: ...

    async def mesh_settings(self) -> schema.MeshSettingsInfo: ...

    async def change_mesh_settings(self, change: schema.MeshSettingsChange) -> schema.MeshSettingsInfo: ...

    async def list_rollouts(self, namespace: str | None) -> list[schema.RolloutInfo]: ...

    async def get_rollout(self, namespace: str, name: str) -> schema.RolloutInfo: ...

    async def command_rollout(
        self, namespace: str, name: str, request: schema.RolloutCommand
    ) -> schema.RolloutInfo:
        """Tells a rollout what to do; ``conflict``: that means nothing in its phase."""

    async def create_token(self, request: schema.TokenRequest) -> schema.Token: ...

    async def backup(self, request: schema.BackupRequest) -> schema.BackupResult:
        """A consistent archive of store and authority, written by :func:`retia.sources.backup.write`."""
