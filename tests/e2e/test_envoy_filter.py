"""EnvoyFilter in a running mesh: tried on one proxy's Envoy, then in force; refused, and the mesh goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from retia.cli.tour.client import Visitor
from retia.cli.tour.processes import wait_until
from retia.cli.tour.stage import Stage

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(120)]

MESH = """\
services:
  web:
    command: [python3, -m, http.server, "8000"]
    ports: ["8000/http"]
"""
FILTER = """\
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: mark}}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_OUTBOUND
      listener:
        filterChain:
          filter: {{name: envoy.filters.network.http_connection_manager, subFilter: {{name: envoy.filters.http.router}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: lua
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code:
            inline_string: |
              {script}
"""  # noqa: E501
MARK = "function envoy_on_response(h) h:headers():add('x-mark', 'one') end"
BROKEN = "function envoy_on_response(h) this is no Lua"


@pytest.fixture
def stage(mesh: Callable[..., Stage]) -> Iterator[Stage]:
    return mesh(MESH)


def marks(visitor: Visitor) -> str:
    return visitor.http("http://web:8000/").headers.get("x-mark", "")


def findings(stage: Stage) -> dict[str, str]:
    return {f.code: f.message for f in stage.client.status().findings}


def test_a_patch_is_tried_on_one_proxy_and_a_broken_one_reaches_none(stage: Stage) -> None:
    visitor = stage.visitor()
    assert marks(visitor) == ""

    stage.client.apply([document(FILTER.format(script=MARK))])
    assert wait_until(lambda: marks(visitor) == "one", 20), findings(stage)
    assert findings(stage) == {}

    stage.client.apply([document(FILTER.format(script=BROKEN))])
    assert wait_until(lambda: "RT0402" in findings(stage), 20), findings(stage)
    assert "script load error" in findings(stage)["RT0402"]
    assert marks(visitor) == "one", "the last accepted form should stay in force"

    stage.client.delete_object("EnvoyFilter", "default", "mark")
    assert wait_until(lambda: marks(visitor) == "", 20)
    assert findings(stage) == {}


def document(text: str):  # type: ignore[no-untyped-def]
    from retia.api.schema import Document

    return Document(path="-", text=text)
