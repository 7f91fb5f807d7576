"""The HTTP API as a Python object, over the controller's unix socket.

Synchronous, because its users are command lines. Every call returns a model of :mod:`retia.api.schema` or
raises :class:`ClientError`, whose text is one line for a person: what, where, the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from retia.aio.unix import LONGEST_SOCKET_PATH
from retia.api import schema

M = TypeVar("M", bound=BaseModel)

TIMEOUT_S = 35.0
"""A little above what the server allows its backend."""


class ClientError(Exception):
    """The controller refused or could not be reached."""

    def __init__(self, message: str, code: str, findings: Sequence[schema.Finding] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """An API error code, or ``no_controller`` where none was reached."""
        self.findings = list(findings)


class Client:
    """A connection to one controller. Use it as a context manager, or call :meth:`close`."""

    def __init__(
        self, socket: Path, transport: httpx.BaseTransport | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        if transport is None and len(str(socket).encode()) > LONGEST_SOCKET_PATH:
            raise ClientError(
                f"the socket path {socket} has {len(str(socket).encode())} bytes; the kernel allows "
                f"{LONGEST_SOCKET_PATH}; set RETIA_HOME to a shorter path",
                "no_controller",
            )
        self._socket = socket
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            transport=transport or httpx.HTTPTransport(uds=str(socket)),
            base_url="http://retia",
            timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- configuration

    def apply(
        self,
        documents: Sequence[schema.Document],
        *,
        dry_run: bool = False,
        owner: str = "",
        prune: bool = False,
        reason: str = "",
    ) -> schema.ApplyResult:
        body = schema.ApplyRequest(
            documents=list(documents), dry_run=dry_run, owner=owner, prune=prune, reason=reason
        )
        return self._call(schema.ApplyResult, "POST", "/v1/apply", body=body)

    def analyze(self, documents: Sequence[schema.Document] = ()) -> list[schema.Finding]:
        body = schema.AnalyzeRequest(documents=list(documents))
        return self._call(schema.AnalyzeResult, "POST", "/v1/analyze", body=body).findings

    def history(
        self,
        kind: str = "",
        namespace: str = "default",
        name: str = "",
        *,
        revision: int = 0,
        limit: int = 20,
    ) -> list[schema.HistoryEntry]:
        entries = self._call(
            schema.HistoryList,
            "GET",
            "/v1/history",
            kind=kind,
            namespace=namespace,
            name=name,
            revision=revision,
            limit=limit,
        )
        return entries.items

    def undo(self, revision: int = 0, *, dry_run: bool = False, reason: str = "") -> schema.ApplyResult:
        body = schema.UndoRequest(revision=revision, dry_run=dry_run, reason=reason)
        return self._call(schema.ApplyResult, "POST", "/v1/undo", body=body)

    def diff(self, documents: Sequence[schema.Document], *, full: bool = False) -> schema.DiffResult:
        body = schema.DiffRequest(documents=list(documents), full=full)
        return self._call(schema.DiffResult, "POST", "/v1/diff", body=body)

    def explain(self, request: schema.ExplainRequest) -> schema.ExplainResult:
        return self._call(schema.ExplainResult, "POST", "/v1/explain", body=request)

    def delete_documents(self, documents: Sequence[schema.Document]) -> list[schema.DeleteResult]:
        body = schema.ApplyRequest(documents=list(documents))
        content = self._send("POST", "/v1/delete", body=body)
        return TypeAdapter(list[schema.DeleteResult]).validate_json(content)

    def list_objects(self, kind: str = "", namespace: str | None = None) -> list[schema.ObjectInfo]:
        path = f"/v1/objects/{_part(kind)}" if kind else "/v1/objects"
        return self._call(schema.ObjectList, "GET", path, namespace=namespace).items

    def get_object(self, kind: str, namespace: str, name: str) -> schema.ObjectInfo:
        return self._call(schema.ObjectInfo, "GET", _object_path(kind, namespace, name))

    def delete_object(self, kind: str, namespace: str, name: str) -> schema.DeleteResult:
        return self._call(schema.DeleteResult, "DELETE", _object_path(kind, namespace, name))

    def delivery(self, kind: str, namespace: str, name: str) -> schema.Delivery:
        return self._call(schema.Delivery, "GET", f"{_object_path(kind, namespace, name)}/delivery")

    # -- inventory

    def list_services(self, namespace: str | None = None) -> list[schema.ServiceInfo]:
        return self._call(schema.ServiceList, "GET", "/v1/services", namespace=namespace).items

    def get_service(self, host: str) -> schema.ServiceDetail:
        return self._call(schema.ServiceDetail, "GET", f"/v1/services/{_part(host)}")

    def list_workloads(self, namespace: str | None = None) -> list[schema.WorkloadInfo]:
        return self._call(schema.WorkloadList, "GET", "/v1/workloads", namespace=namespace).items

    def list_proxies(self) -> list[schema.ProxyInfo]:
        return self._call(schema.ProxyList, "GET", "/v1/proxies").items

    def get_proxy(self, proxy: str) -> schema.ProxyInfo:
        return self._call(schema.ProxyInfo, "GET", "/v1/proxy", proxy=proxy)

    def proxy_query(self, proxy: str, path: str) -> schema.ConfigDump:
        return self._call(schema.ConfigDump, "GET", "/v1/proxy/query", proxy=proxy, path=path)

    def list_hosts(self) -> list[schema.HostInfo]:
        return self._call(schema.HostList, "GET", "/v1/hosts").items

    # -- rollouts

    def list_rollouts(self, namespace: str | None = None) -> list[schema.RolloutInfo]:
        return self._call(schema.RolloutList, "GET", "/v1/rollouts", namespace=namespace).items

    def get_rollout(self, namespace: str, name: str) -> schema.RolloutInfo:
        return self._call(schema.RolloutInfo, "GET", f"/v1/rollouts/{_part(namespace)}/{_part(name)}")

    def command_rollout(
        self, namespace: str, name: str, request: schema.RolloutCommand
    ) -> schema.RolloutInfo:
        url = f"/v1/rollouts/{_part(namespace)}/{_part(name)}"
        return self._call(schema.RolloutInfo, "POST", url, body=request)

    # -- the controller

    def status(self) -> schema.StatusInfo:
        return self._call(schema.StatusInfo, "GET", "/v1/status")

    def mesh_settings(self) -> schema.MeshSettingsInfo:
        return self._call(schema.MeshSettingsInfo, "GET", "/v1/mesh")

    def change_mesh_settings(self, change: schema.MeshSettingsChange) -> schema.MeshSettingsInfo:
        return self._call(schema.MeshSettingsInfo, "PATCH", "/v1/mesh", body=change)

    def create_token(self, request: schema.TokenRequest) -> schema.Token:
        return self._call(schema.Token, "POST", "/v1/tokens", body=request)

    def backup(self, request: schema.BackupRequest) -> schema.BackupResult:
        return self._call(schema.BackupResult, "POST", "/v1/backup", body=request)

    # -- the wire

    def _call(self, model: type[M], method: str, url: str, body: BaseModel | None = None, **query: Any) -> M:
        content = self._send(method, url, body=body, **query)
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise ClientError(
                f"the controller at {self._socket} answered {method} {url} with something that is not "
                f"{model.__name__}; are its version and this command's version neighbours?",
                "internal",
            ) from error

    def _send(self, method: str, url: str, body: BaseModel | None = None, **query: Any) -> bytes:
        content = body.model_dump_json(exclude_none=True).encode() if body is not None else None
        headers = {"content-type": "application/json"} if content is not None else {}
        params = {key: value for key, value in query.items() if value is not None}
        try:
            answer = self._http.request(method, url, content=content, headers=headers, params=params)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TimeoutException as error:
            raise ClientError(
                f"the controller at {self._socket} did not answer {method} {url} within "
                f"{self._timeout_s:g} s; see its log with 'retia logs controller'",
                "timeout",
            ) from error
        except httpx.HTTPError as error:
            raise ClientError(
                f"the connection to the controller at {self._socket} broke during {method} {url}: {error}; "
                "try again, or see 'retia logs controller'",
                "unavailable",
            ) from error
        if answer.is_success:
            return answer.content
        raise _refusal(answer, self._socket)

    def _unreachable(self, error: Exception) -> ClientError:
        cause = error.__cause__ or error.__context__ or error
        text = str(cause) or str(error)
        if "Permission denied" in text or "Errno 13" in text:
            message = (
                f"may not open the controller's socket {self._socket}: permission denied; run this as the "
                "user who started the controller"
            )
        elif "No such file" in text or "Errno 2" in text:
            message = (
                f"no controller is running for this RETIA_HOME: there is no socket {self._socket}; "
                "start a mesh with 'retia up' or 'retia controller'"
            )
        else:
            message = (
                f"no controller answers on {self._socket} ({text}); "
                "start a mesh with 'retia up' or 'retia controller'"
            )
        return ClientError(message, "no_controller")


def _refusal(answer: httpx.Response, socket: Path) -> ClientError:
    try:
        error = schema.Error.model_validate_json(answer.content)
    except ValidationError:
        return ClientError(f"the controller at {socket} answered HTTP {answer.status_code}", "internal")
    return ClientError(error.message, error.code, error.findings)


NO_NAMESPACE = "-"
"""Stands in paths for the namespace of objects that are in none."""


def _part(text: str) -> str:
    return quote(text, safe="")


def _object_path(kind: str, namespace: str, name: str) -> str:
    return f"/v1/objects/{_part(kind)}/{_part(namespace or NO_NAMESPACE)}/{_part(name)}"
