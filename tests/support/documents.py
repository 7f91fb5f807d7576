"""Builders of users' documents, so that a test writes only the part of ``spec`` that it is about."""

from __future__ import annotations

import textwrap
from typing import Any

from retia.config.kinds import KINDS
from retia.config.parse import Parsed, SourceText, parse
from retia.model.objects import ConfigObject


def document(kind: str, spec: str, name: str = "it", namespace: str = "default", labels: str = "") -> str:
    """A YAML document of a kind whose ``spec`` is the indented text given."""
    more = f", labels: {labels}" if labels else ""
    head = (
        f"apiVersion: {KINDS[kind].api_version}\nkind: {kind}\n"
        f"metadata: {{name: {name}, namespace: {namespace}{more}}}\nspec:\n"
    )
    return head + textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ") + "\n"


def parse_text(*texts: str | bytes) -> Parsed:
    """The texts parsed as files ``a.yaml``, ``b.yaml``, ..."""
    return parse(SourceText(f"{chr(ord('a') + i)}.yaml", text) for i, text in enumerate(texts))


def findings_of(kind: str, spec: str) -> list[str]:
    """``field: message`` of each finding about one document."""
    return [f"{each.field}: {each.message}" for each in parse_text(document(kind, spec)).findings]


def read(kind: str, spec: str, name: str = "it", namespace: str = "default") -> ConfigObject:
    """The object of one document that must be right."""
    parsed = parse_text(document(kind, spec, name, namespace))
    assert not parsed.findings, "\n".join(map(str, parsed.findings))
    return parsed.objects[0]


def spec_of(kind: str, spec: str) -> Any:
    """The model of one document that must be right."""
    return read(kind, spec).spec
