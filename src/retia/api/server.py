"""The HTTP API over a :class:`~retia.api.backend.Backend`.

It is served on a unix socket whose file permissions are the authentication: whoever may open the socket may
do everything. So there is no token to leak and no port to guard, and the middleware that would check one
stands in one place (:func:`create_app`) should the API ever listen on TCP.

Every refusal has one form (:class:`retia.api.schema.Error`), whatever its cause: a shape that does not fit, a
body that is too large, an unknown path, a backend's :class:`~retia.api.backend.ApiError`, a time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retia import __version__
from retia.api import schema
from retia.api.backend import STATUS, ApiError, Backend

BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""The largest request body. Arbitrary: a mesh of 10,000 services in YAML is about 10 MB."""

ANSWER_LIMIT_S = 30.0
"""The longest that a backend may take."""

ADMIN_PAGES = (
    "config_dump",
    "clusters",
    "listeners",
    "stats",
    "stats/prometheus",
    "certs",
    "server_info",
    "memory",
    "ready",
    "init_dump",
    "runtime",
)
"""The pages of Envoy's admin interface that may be asked for: those that only read."""

_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": schema.Error}, "5XX": {"model": schema.Error}}

T = TypeVar("T")
NamespaceQuery = Annotated[str | None, Query(max_length=253, description="One namespace; absent: all.")]
ProxyQuery = Annotated[str, Query(max_length=512, description="The proxy's or its workload's id.")]
PathQuery = Annotated[str, Query(max_length=2048, description="A page of Envoy's admin interface.")]


def create_app(backend: Backend) -> FastAPI:
    """The application, ready for any ASGI server."""
    app = FastAPI(title="Retia", version=__version__, description="The API of a Retia controller.")
    app.include_router(_objects(backend))
    app.include_router(_inventory(backend))
    app.include_router(_rollouts(backend))
    app.include_router(_controller(backend))
    app.add_middleware(_Bounded)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    return app


async def _in_time(answer: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            return await answer
    except TimeoutError as error:
        raise ApiError("timeout", f"the controller did not answer within {ANSWER_LIMIT_S:.0f} s") from error


def _objects(backend: Backend) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["configuration"], responses=_ERRORS)

    @router.post("/apply")
    async def apply(request: schema.ApplyRequest) -> schema.ApplyResult:
        """Stores all objects of all documents, or none."""
        if request.prune and not request.owner:
            raise ApiError("invalid", "prune needs an owner: only the objects of one owner are pruned")
        return await _in_time(backend.apply(request))

    @router.post("/analyze")
    async def analyze(request: schema.AnalyzeRequest) -> schema.AnalyzeResult:
        """Judges documents as if they were applied, or the mesh as it is."""
        return await _in_time(backend.analyze(request))

    @router.post("/diff")
    async def diff(request: schema.DiffRequest) -> schema.DiffResult:
        """What applying the documents would change in the proxies."""
        return await _in_time(backend.diff(request))

    @router.get("/history")
    async def history(
        kind: str = "",
        namespace: str = "default",
        name: str = "",
        revision: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    ) -> schema.HistoryList:
        """The last writes of configuration, the newest first."""
        return await _in_time(backend.history(kind, namespace, name, revision, limit))

    @router.post("/undo")
    async def undo(request: schema.UndoRequest) -> schema.ApplyResult:
        """Takes one write back."""
        return await _in_time(backend.undo(request))

    @router.post("/delete")
    async def delete_documents(request: schema.ApplyRequest) -> list[schema.DeleteResult]:
        """Removes every object that the documents name."""
        if request.dry_run or request.prune or request.owner:
            raise ApiError("invalid", "dry_run, prune and owner have no meaning for delete")
        return await _in_time(backend.delete_documents(request.documents))

    @router.get("/objects")
    async def list_all(namespace: NamespaceQuery = None) -> schema.ObjectList:
        """All objects of every kind."""
        return schema.ObjectList(items=await _in_time(backend.list_objects("", namespace)))

    @router.get("/objects/{kind}")
    async def list_objects(kind: str, namespace: NamespaceQuery = None) -> schema.ObjectList:
        """All objects of a kind."""
        return schema.ObjectList(items=await _in_time(backend.list_objects(kind, namespace)))

    @router.get("/objects/{kind}/{namespace}/{name}")
    async def get_object(kind: str, namespace: str, name: str) -> schema.ObjectInfo:
        """One object as applied."""
        return await _in_time(backend.get_object(kind, namespace, name))

    @router.delete("/objects/{kind}/{namespace}/{name}")
    async def delete_object(kind: str, namespace: str, name: str) -> schema.DeleteResult:
        """Removes one object."""
        return await _in_time(backend.delete_object(kind, namespace, name))

    @router.get("/objects/{kind}/{namespace}/{name}/delivery")
    async def delivery(kind: str, namespace: str, name: str) -> schema.Delivery:
        """Which proxies hold what the object shaped."""
        return await _in_time(backend.delivery(kind, namespace, name))

    return router


def _inventory(backend: Backend) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["inventory"], responses=_ERRORS)

    @router.get("/services")
    async def list_services(namespace: NamespaceQuery = None) -> schema.ServiceList:
        """All services, from ``retia run`` and from configuration."""
        return schema.ServiceList(items=await _in_time(backend.list_services(namespace)))

    @router.get("/services/{host}")
    async def get_service(host: str) -> schema.ServiceDetail:
        """One service with its endpoints, by any spelling that resolves."""
        return await _in_time(backend.get_service(host))

    @router.get("/workloads")
    async def list_workloads(namespace: NamespaceQuery = None) -> schema.WorkloadList:
        """All running instances."""
        return schema.WorkloadList(items=await _in_time(backend.list_workloads(namespace)))

    @router.get("/proxies")
    async def list_proxies() -> schema.ProxyList:
        """All Envoys and what they acknowledged."""
        return schema.ProxyList(items=await _in_time(backend.list_proxies()))

    @router.get("/proxy")
    async def get_proxy(proxy: ProxyQuery) -> schema.ProxyInfo:
        """One Envoy."""
        return await _in_time(backend.get_proxy(proxy))

    @router.get("/proxy/query")
    async def proxy_query(proxy: ProxyQuery, path: PathQuery) -> schema.ConfigDump:
        """A read-only page of an Envoy's admin interface, asked through its host's agent."""
        page = path.lstrip("/").partition("?")[0]
        if page not in ADMIN_PAGES:
            allowed = ", ".join(ADMIN_PAGES)
            raise ApiError(
                "invalid", f"path is {path!r}; it must be one of {allowed}, with or without a query"
            )
        return await _in_time(backend.proxy_query(proxy, f"/{path.lstrip('/')}"))

    @router.post("/explain")
    async def explain(request: schema.ExplainRequest) -> schema.ExplainResult:
        """What becomes of one call."""
        return await _in_time(backend.explain(request))

    @router.get("/hosts")
    async def list_hosts() -> schema.HostList:
        """All hosts with an agent."""
        return schema.HostList(items=await _in_time(backend.list_hosts()))

    return router


def _rollouts(backend: Backend) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["rollouts"], responses=_ERRORS)

    @router.get("/rollouts")
    async def list_rollouts(namespace: NamespaceQuery = None) -> schema.RolloutList:
        """How far all rollouts have come."""
        return schema.RolloutList(items=await _in_time(backend.list_rollouts(namespace)))

    @router.get("/rollouts/{namespace}/{name}")
    async def get_rollout(namespace: str, name: str) -> schema.RolloutInfo:
        """How far one rollout has come."""
        return await _in_time(backend.get_rollout(namespace, name))

    @router.post("/rollouts/{namespace}/{name}")
    async def command_rollout(
        namespace: str, name: str, request: schema.RolloutCommand
    ) -> schema.RolloutInfo:
        """Promotes, aborts, pauses, resumes or restarts a rollout."""
        return await _in_time(backend.command_rollout(namespace, name, request))

    return router


def _controller(backend: Backend) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["controller"], responses=_ERRORS)

    @router.get("/status")
    async def status() -> schema.StatusInfo:
        """The controller's own health."""
        return await _in_time(backend.status())

    @router.get("/mesh")
    async def mesh_settings() -> schema.MeshSettingsInfo:
        """Mesh-wide settings."""
        return await _in_time(backend.mesh_settings())

    @router.patch("/mesh")
    async def change_mesh_settings(change: schema.MeshSettingsChange) -> schema.MeshSettingsInfo:
        """Changes some mesh-wide settings."""
        return await _in_time(backend.change_mesh_settings(change))

    @router.post("/tokens")
    async def create_token(request: schema.TokenRequest) -> schema.Token:
        """A short-lived token with which one agent joins."""
        return await _in_time(backend.create_token(request))

    @router.post("/backup")
    async def backup(request: schema.BackupRequest) -> schema.BackupResult:
        """Writes an archive of store and authority on the controller's machine."""
        return await _in_time(backend.backup(request))

    return router


# -- errors --------------------------------------------------------------------------------------------


def _error(
    code: str, message: str, findings: list[schema.Finding] | None = None, status: int = 0
) -> JSONResponse:
    body = schema.Error(code=code, message=message, findings=findings or [])
    return JSONResponse(body.model_dump(mode="json"), status_code=status or STATUS.get(code, 500))


async def _on_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _error(error.code, error.message, error.findings)


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [f"{_field(e['loc'])}: {e['msg']}" for e in error.errors()]
    return _error("invalid", "the request does not fit the API: " + "; ".join(problems[:20]))


async def _on_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "not_found" if error.status_code == 404 else "invalid"
    return _error(code, str(error.detail), status=error.status_code)


async def _on_bug(_: Request, error: Exception) -> JSONResponse:
    return _error("internal", f"the controller failed on this request: {type(error).__name__}; see its log")


def _field(location: tuple[int | str, ...]) -> str:
    """``("body", "documents", 0, "text")`` as ``body.documents[0].text``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


class _TooLargeError(Exception):
    pass


class _Bounded:
    """Refuses bodies above the limit, by their declared length or, without one, while they arrive."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > BODY_LIMIT_BYTES:
            await self._refuse(scope, receive, send)
            return
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > BODY_LIMIT_BYTES:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            # The framework turns what happens while it reads the body into an answer of its own.
            nonlocal started
            if seen <= BODY_LIMIT_BYTES or started:
                started = True
                await send(message)

        with contextlib.suppress(_TooLargeError):
            await self._app(scope, counted, noted)
        if seen > BODY_LIMIT_BYTES and not started:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = BODY_LIMIT_BYTES // (1024 * 1024)
        answer = _error("too_large", f"the request body is above {limit} MiB; apply fewer files at a time")
        await answer(scope, receive, send)
