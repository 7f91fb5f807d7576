"""Objects back as documents."""

from __future__ import annotations

import yaml

from retia.config.document import to_document
from tests.support.documents import parse_text, read


def test_only_what_differs_from_the_default_is_written() -> None:
    obj = read(
        "VirtualService",
        "hosts: [A.B.]\nhttp: [{timeout: 1000ms, route: [{destination: {host: a}, weight: 0}]}]",
    )
    assert to_document(obj) == {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "it", "namespace": "default"},
        "spec": {"hosts": ["a.b"], "http": [{"timeout": "1s", "route": [{"destination": {"host": "a"}}]}]},
    }


def test_it_parses_to_the_same_object() -> None:
    obj = read("PeerAuthentication", "selector: {matchLabels: {a: b}}\nportLevelMtls: {80: {mode: STRICT}}")
    assert parse_text(yaml.safe_dump(to_document(obj))).objects == (obj,)
