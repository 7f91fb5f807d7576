"""Secret: its values are read, and never told."""

from __future__ import annotations

import base64

import pytest

from retia.config.schema.secret import REDACTED, Secret, redacted
from tests.support.documents import parse_text

HIDDEN = "correct horse battery staple"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_values_are_read_in_both_spellings() -> None:
    spec = Secret.model_validate(
        {"data": {"a": encoded("one"), "b": encoded("two")}, "stringData": {"b": "2"}}
    )
    assert [getattr(spec.value(key), "reveal", lambda: None)() for key in ("a", "b", "c")] == [
        b"one",
        b"2",
        None,
    ]


def test_no_text_of_a_model_holds_a_value() -> None:
    spec = Secret.model_validate({"data": {"a": encoded(HIDDEN)}, "stringData": {"b": HIDDEN}})
    for text in (repr(spec), str(spec), str(spec.model_dump()), spec.model_dump_json()):
        assert HIDDEN not in text
        assert encoded(HIDDEN) not in text
        assert REDACTED in text


@pytest.mark.parametrize(
    "content",
    [
        f"data: {{a: '{HIDDEN}!'}}",
        f"data: {{a: ['{HIDDEN}']}}",
        f"stringData: {{a: ['{HIDDEN}']}}",
        f"data: '{HIDDEN}'",
    ],
)
def test_findings_do_not_tell_values(content: str) -> None:
    parsed = parse_text(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: it}}\n{content}\n")
    assert parsed.findings
    assert not any("horse" in str(each) for each in parsed.findings), parsed.findings


def test_a_shown_secret_cannot_be_applied() -> None:
    text = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: it}}\nstringData: {{a: '{REDACTED}'}}\n"
    assert "give the value itself" in str(parse_text(text).findings)


def test_a_certificate_needs_its_key() -> None:
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: it}\n"
    text = f"{head}type: kubernetes.io/tls\nstringData: {{tls.crt: x}}\n"
    assert "must have tls.key" in str(parse_text(text).findings)


def test_a_document_is_shown_without_values() -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "it",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": HIDDEN, "team": "a"},
        },
        "data": {"a": encoded(HIDDEN)},
        "stringData": {"b": HIDDEN},
    }
    shown = redacted(document)
    assert HIDDEN not in str(shown)
    assert encoded(HIDDEN) not in str(shown)
    assert shown["data"] == {"a": REDACTED}
    assert shown["metadata"]["annotations"] == {"team": "a"}
    assert document["stringData"] == {"b": HIDDEN}, "the document itself is as it was"


@pytest.mark.parametrize("version", ["/v1", "v2", None])
def test_one_of_a_version_that_is_not_read_is_hidden_too(version: str | None) -> None:
    document = {"apiVersion": version, "kind": "Secret", "stringData": {"b": HIDDEN}}
    assert HIDDEN not in str(redacted(document))
    assert not parse_text(f"apiVersion: {version}\nkind: Secret\nmetadata: {{name: a}}\n").ok


def test_other_kinds_are_shown_as_they_are() -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    assert redacted(document) == document
