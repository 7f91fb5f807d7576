"""Files judged with no mesh running."""

from __future__ import annotations

from retia.analysis.files import judge
from retia.config.codes import Code
from retia.config.parse import SourceText
from tests.support.documents import document

RULE = document(
    "VirtualService", "hosts: [reviews]\nhttp:\n- route: [{destination: {host: ratings, subset: v1}}]"
)
SERVICE = document("Service", "ports: [{port: 80, name: http}]", "reviews")


def codes(*texts: str, schema_only: bool = False) -> list[Code]:
    sources = [SourceText(f"{number}.yaml", text) for number, text in enumerate(texts)]
    return [Code(each.code) for each in judge(sources, schema_only=schema_only)]


def test_services_that_are_in_no_file_may_be_in_the_mesh() -> None:
    assert codes(RULE) == [Code.UNKNOWN_SUBSET]


def test_files_that_define_services_define_all_of_them() -> None:
    assert codes(RULE, SERVICE) == [Code.UNKNOWN_HOST]


def test_a_name_outside_the_mesh_must_be_defined() -> None:
    assert codes(RULE.replace("host: ratings, subset: v1", "host: a.example.com")) == [Code.UNKNOWN_HOST]


def test_the_schema_alone() -> None:
    assert codes(RULE, schema_only=True) == []
    assert codes("apiVersion: v9", schema_only=True) == [Code.NOT_AN_OBJECT]
    assert codes(RULE, RULE, schema_only=True) == []


def test_findings_say_file_and_line_of_the_field() -> None:
    (found,) = judge([SourceText("routes.yaml", f"# rules\n---\n{RULE}")])
    assert (found.origin.path, found.origin.line) == ("routes.yaml", 9)
    assert found.field == "spec.http[0].route[0].destination.subset"
