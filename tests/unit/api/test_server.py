"""The HTTP API: shapes, bounds and the one form of refusals."""

from __future__ import annotations

import httpx
import pytest

from retia.api import schema, server
from retia.api.backend import STATUS, ApiError
from tests.unit.api.fakes import FakeBackend

VS = "kind: VirtualService\nmetadata: {name: reviews}\nspec: {}\n"


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def http(backend: FakeBackend) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(server.create_app(backend), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://retia")


async def test_apply_hands_documents_over_and_says_what_became_of_each(
    http: httpx.AsyncClient, backend: FakeBackend
) -> None:
    body = {"documents": [{"path": "a.yaml", "text": VS}]}
    first = await http.post("/v1/apply", json=body)
    second = await http.post("/v1/apply", json=body)
    assert first.json()["items"][0]["action"] == "created"
    assert second.json()["items"][0]["action"] == "unchanged"
    assert backend.calls[0] == ("apply", ["a.yaml"], False)


@pytest.mark.parametrize("code", sorted(STATUS))
async def test_a_backends_refusal_has_its_status_and_the_error_form(
    code: str, http: httpx.AsyncClient, backend: FakeBackend
) -> None:
    finding = schema.Finding(code="RT0001", level="error", message="wrong")
    backend.fail = ApiError(code, "what, where", [finding])
    answer = await http.post("/v1/apply", json={"documents": []})
    assert answer.status_code == STATUS[code]
    assert schema.Error.model_validate(answer.json()).findings == [finding]
    assert answer.json()["code"] == code


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"documents": [], "dryrun": True}, "body.dryrun"),
        ({"documents": [{"path": "x"}]}, "body.documents[0].text"),
        ({}, "body.documents"),
    ],
)
async def test_a_wrong_shape_names_the_field(
    http: httpx.AsyncClient, body: dict[str, object], field: str
) -> None:
    answer = await http.post("/v1/apply", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid"
    assert field in answer.json()["message"]


async def test_unknown_paths_have_the_error_form(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_bug_in_the_backend_is_an_internal_error_without_its_text(
    http: httpx.AsyncClient, backend: FakeBackend
) -> None:
    backend.fail = RuntimeError("secret detail")
    answer = await http.get("/v1/status")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret detail" not in answer.text


async def test_a_body_above_the_limit_is_refused_by_its_declared_length(http: httpx.AsyncClient) -> None:
    headers = {"content-length": str(server.BODY_LIMIT_BYTES + 1), "content-type": "application/json"}
    answer = await http.post("/v1/apply", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_body_above_the_limit_is_refused_while_it_arrives(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_LIMIT_BYTES", 1000)

    async def chunks() -> object:
        for _ in range(20):
            yield b" " * 100

    answer = await http.post("/v1/apply", content=chunks(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_backend_that_hangs_is_given_up(
    http: httpx.AsyncClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    async def hang() -> schema.StatusInfo:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(server, "ANSWER_LIMIT_S", 0.01)
    monkeypatch.setattr(backend, "status", hang)
    answer = await http.get("/v1/status")
    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")


@pytest.mark.parametrize("path", ["quitquitquit", "/logging?level=debug", "config_dump/../drain_listeners"])
async def test_only_reading_pages_of_an_envoy_may_be_asked_for(
    http: httpx.AsyncClient, backend: FakeBackend, path: str
) -> None:
    answer = await http.get("/v1/proxy/query", params={"proxy": "default/web-0", "path": path})
    assert answer.status_code == 400
    assert not backend.calls


async def test_openapi_describes_every_path_and_the_error_form(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert "/v1/apply" in document["paths"]
    assert "Error" in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method in methods.values():
            assert path.startswith("/v1/")
            assert method["description"], path
