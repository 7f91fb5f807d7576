"""Any text parses or gives findings of the catalogue; what parses is printed and parsed to the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from retia.analysis.analyze import analyze
from retia.analysis.catalogue import CATALOGUE
from retia.config import re2
from retia.config.codes import Code
from retia.config.document import to_document
from retia.config.duration import Duration
from retia.config.kinds import KINDS
from retia.config.parse import Parsed, SourceText, parse, parse_document
from retia.config.reference import fields_of

WORDS = sorted({part for kind in KINDS for field in fields_of(kind) for part in field.path.split(".")})
FIELDS = st.sampled_from([word.removesuffix("[]") for word in WORDS])

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["a", "reviews", "*.a.b", "5s", "1ms", "10.0.0.1", "STRICT", "mesh", "*", ".", "(?=", "%"]
    ),
    st.integers(min_value=-1, max_value=70000),
)
DATA = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@st.composite
def objects(draw: st.DrawFn, spec: st.SearchStrategy[Any]) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    return {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {"name": draw(st.sampled_from(["a", "b", "c", "d"])), "namespace": "default"},
        "spec": draw(spec),
    }


# Specs that are right more often than not, so that parsing gets past the first field.

HOST = st.sampled_from(["reviews", "ratings", "a.b", "db.shop.svc.cluster.local"])
LABELS = st.dictionaries(st.sampled_from(["app", "version"]), st.sampled_from(["v1", "v2"]), max_size=2)
TEXT = st.text("/ab", min_size=1)
MATCH = st.fixed_dictionaries({"prefix": TEXT}) | st.fixed_dictionaries({"exact": TEXT})
DESTINATION = st.fixed_dictionaries(
    {"host": HOST},
    optional={
        "subset": st.sampled_from(["v1", "v2"]),
        "port": st.fixed_dictionaries({"number": st.integers(1, 65535)}),
    },
)
DURATION = st.integers(1, 10**7).map(lambda ms: f"{ms}ms")
RULE = st.fixed_dictionaries(
    {
        "route": st.lists(
            st.fixed_dictionaries({"destination": DESTINATION, "weight": st.integers(1, 100)}),
            min_size=1,
            max_size=3,
        )
    },
    optional={
        "match": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "uri": MATCH,
                    "headers": st.dictionaries(st.sampled_from(["x-a", "x-b"]), MATCH, max_size=2),
                    "sourceLabels": LABELS,
                    "port": st.integers(1, 65535),
                },
            ),
            max_size=3,
        ),
        "timeout": DURATION,
        "retries": st.fixed_dictionaries(
            {"attempts": st.integers(1, 5)}, optional={"perTryTimeout": DURATION}
        ),
        "mirror": DESTINATION,
    },
)
VIRTUAL_SERVICE = st.fixed_dictionaries(
    {
        "hosts": st.lists(HOST, min_size=1, max_size=2, unique=True),
        "http": st.lists(RULE, min_size=1, max_size=3),
    }
)
DESTINATION_RULE = st.fixed_dictionaries(
    {"host": HOST},
    optional={
        "subsets": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["v1", "v2"]), "labels": LABELS}), max_size=2
        ),
        "trafficPolicy": st.fixed_dictionaries(
            {
                "connectionPool": st.fixed_dictionaries(
                    {"tcp": st.fixed_dictionaries({"connectTimeout": DURATION})}
                )
            }
        ),
    },
)
POLICY = st.fixed_dictionaries(
    {"mtls": st.fixed_dictionaries({"mode": st.sampled_from(["STRICT", "PERMISSIVE", "DISABLE", "UNSET"])})},
    optional={"selector": st.fixed_dictionaries({"matchLabels": LABELS})},
)


@st.composite
def good_documents(draw: st.DrawFn) -> dict[str, Any]:
    kind, spec = draw(
        st.sampled_from(
            [
                ("VirtualService", VIRTUAL_SERVICE),
                ("DestinationRule", DESTINATION_RULE),
                ("PeerAuthentication", POLICY),
            ]
        )
    )
    document = draw(objects(st.just(draw(spec))))
    return document | {"apiVersion": KINDS[kind].api_version, "kind": kind}


def check(parsed: Parsed) -> None:
    """What holds for everything parsed."""
    for each in parsed.findings:
        assert each.code in CATALOGUE
        assert each.level is Code(each.code).level
        assert each.message
        str(each)
    assert [document.ref for document in parsed.documents] == [obj.ref for obj in parsed.objects]
    for obj in parsed.objects:
        hash(obj)


@given(st.binary(max_size=300))
def test_any_bytes(text: bytes) -> None:
    check(parse([SourceText("x.yaml", text)]))


@given(st.text(alphabet="ab:-{}[]&*!|>'\"#%@, \n\t<0\x00\ud800", max_size=200))
def test_any_text_of_yamls_own_characters(text: str) -> None:
    check(parse([SourceText("x.yaml", text)]))


@given(DATA)
def test_any_data(data: Any) -> None:
    check(parse_document(data))
    check(parse([SourceText("x.yaml", yaml.safe_dump(data))]))


@settings(max_examples=300)
@given(objects(DATA))
def test_any_spec(document: dict[str, Any]) -> None:
    check(parse_document(document))


@given(good_documents())
def test_what_is_printed_parses_to_the_same(document: dict[str, Any]) -> None:
    for obj in parse_document(document).objects:
        printed = to_document(obj)
        again = parse([SourceText("x.json", json.dumps(printed))])
        assert again.objects == (obj,)
        assert to_document(again.objects[0]) == printed


@given(st.lists(good_documents(), max_size=6), st.randoms())
def test_the_order_of_documents_does_not_matter(documents: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(documents)
    random.shuffle(shuffled)
    one, other = _parse_each(documents), _parse_each(shuffled)
    assert one.objects == other.objects
    assert sorted(map(_without_place, one.findings)) == sorted(map(_without_place, other.findings))
    assert analyze(one.objects, []) == analyze(reversed(other.objects), [])


def _parse_each(documents: Sequence[dict[str, Any]]) -> Parsed:
    return parse([SourceText("x.yaml", yaml.safe_dump_all(documents))])


def _without_place(finding: Any) -> tuple[str, str, str]:
    message = "" if finding.code == Code.DUPLICATE_OBJECT else finding.message
    return (finding.code, f"{finding.ref} {finding.field}", message)


@given(st.text(alphabet="ab()[]{}*+?|\\^$.:-<>=!PQE0123,dxipU", max_size=20))
def test_any_pattern_is_judged(pattern: str) -> None:
    try:
        assert re2.check(pattern) >= 0
    except re2.PatternError as error:
        assert str(error)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_duration_is_printed_as_it_parses(us: int) -> None:
    duration = Duration.parse(f"{us}us")
    assert Duration.parse(str(duration)) == duration
