"""The API's questions about what a mesh does and would do: each reaches the backend, and its limits hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from retia.api import schema
from retia.api.client import Client, ClientError
from tests.unit.api.fakes import FakeBackend, serving

DOCUMENT = schema.Document(path="a.yaml", text="kind: x")


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


def test_each_question_reaches_the_backend(backend: FakeBackend, tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    with serving(backend, socket), Client(socket) as client:
        client.analyze([DOCUMENT])
        client.diff([DOCUMENT], full=True)
        client.history("vs", "shop", "reviews", revision=3, limit=5)
        client.undo(3, dry_run=True, reason="why")
        client.explain(schema.ExplainRequest(workload="web", url="http://x/", headers=[("a", "b")]))
    assert backend.calls == [
        ("analyze", ["a.yaml"]),
        ("diff", ["a.yaml"], True),
        ("history", "vs", "shop", "reviews", 3, 5),
        ("undo", 3, True, "why"),
        ("explain", "web", "http://x/", "GET", [("a", "b")]),
    ]


def test_pruning_without_an_owner_is_refused(backend: FakeBackend, tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    with (
        serving(backend, socket),
        Client(socket) as client,
        pytest.raises(ClientError, match="needs an owner"),
    ):
        client.apply([], prune=True)
