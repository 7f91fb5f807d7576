"""Building objects before they are stored."""

from __future__ import annotations

import pytest

from retia.config.codes import Code
from retia.control.trial import tried
from retia.model.mesh import MeshSettings
from retia.model.objects import ConfigObject
from retia.model.snapshot import Snapshot
from retia.policy.facts import FactBase
from retia.policy.routing import merge
from tests.support.documents import read


def snapshot(*objects: ConfigObject) -> Snapshot:
    facts = FactBase(MeshSettings())
    facts.put_objects([read("Service", "ports: [{port: 80, name: http}]", "reviews"), *objects])
    return Snapshot().with_changes(facts.take_changes())[0]


def paths(name: str, count: int) -> ConfigObject:
    matches = ", ".join(f"{{uri: {{exact: /{name}{n}}}}}" for n in range(count))
    spec = f"hosts: [reviews]\nhttp: [{{match: [{matches}], route: [{{destination: {{host: reviews}}}}]}}]"
    return read("VirtualService", spec, name)


def test_what_only_several_objects_together_do_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "MAX_MATCHES", 10)
    before = snapshot(paths("a", 8))
    (found,) = tried(before, [paths("b", 8)])
    assert (found.code, str(found.ref)) == (Code.LIMIT, "VirtualService/default/b")


def test_what_is_right_has_no_finding() -> None:
    rule = read("DestinationRule", "host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]")
    assert tried(snapshot(), [paths("a", 3), rule]) == ()


def test_nothing_is_left_behind() -> None:
    before = snapshot()
    tried(before, [paths("a", 3)])
    assert before.get(("config", "VirtualService", "default", "a")) is None
