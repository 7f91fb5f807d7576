"""Names of workloads, hosts and controllers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retia.identity.spiffe import (
    ControllerIdentity,
    HostIdentity,
    IdentityError,
    WorkloadIdentity,
    controller_identity,
    host_identity,
    parse_identity,
    parse_trust_domain,
    workload_identity,
)

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("identity", "uri"),
    [
        (workload_identity("cluster.local", "shop", "cart"), "spiffe://cluster.local/ns/shop/sa/cart"),
        (workload_identity("td", "a", "x.y-z"), "spiffe://td/ns/a/sa/x.y-z"),
        (host_identity("cluster.local", "Node_1.eu"), "spiffe://cluster.local/retia/host/Node_1.eu"),
        (controller_identity("cluster.local"), "spiffe://cluster.local/retia/controller"),
    ],
    ids=["workload", "dotted account", "host", "controller"],
)
def test_a_name_is_built_and_parsed(
    identity: WorkloadIdentity | HostIdentity | ControllerIdentity, uri: str
) -> None:
    assert identity.uri == str(identity) == uri
    assert parse_identity(uri) == identity


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "must begin with spiffe://"),
        ("https://cluster.local/ns/a/sa/b", "must begin with spiffe://"),
        ("SPIFFE://cluster.local/ns/a/sa/b", "must begin with spiffe://"),
        ("spiffe:///ns/a/sa/b", "trust domain is empty"),
        ("spiffe://Cluster.local/ns/a/sa/b", "only lower-case"),
        ("spiffe://cluster.local:80/ns/a/sa/b", "only lower-case"),
        ("spiffe://user@cluster.local/ns/a/sa/b", "only lower-case"),
        ("spiffe://cluster.local", "the path must be"),
        ("spiffe://cluster.local/", "the path must be"),
        ("spiffe://cluster.local/ns/a/sa/b/", "the path must be"),
        ("spiffe://cluster.local//ns/a/sa/b", "the path must be"),
        ("spiffe://cluster.local/ns/a/sa/b/c", "the path must be"),
        ("spiffe://cluster.local/ns/../sa/b", "namespace '..'"),
        ("spiffe://cluster.local/ns/a%2e/sa/b", "namespace 'a%2e'"),
        ("spiffe://cluster.local/ns/A/sa/b", "namespace 'A'"),
        ("spiffe://cluster.local/ns/a/sa/b?x=1", "service account 'b?x=1'"),
        ("spiffe://cluster.local/ns/a/sa/b#c", "service account 'b#c'"),
        ("spiffe://cluster.local/ns/a/sa/b\n", "service account"),
        ("spiffe://cluster.local/ns/a/sa/b..c", "service account"),
        ("spiffe://cluster.local/retia/host/", "host id ''"),
        ("spiffe://cluster.local/retia/host/..", "host id '..'"),
        ("spiffe://cluster.local/retia/host/a/b", "the path must be"),
        ("spiffe://cluster.local/ns/ä/sa/b", "namespace 'ä'"),
        ("spiffe://" + "a" * 256 + "/ns/a/sa/b", "256 characters"),
        ("spiffe://a/retia/host/" + "a" * 2048, "longer than 2048 bytes"),
    ],
)
def test_a_wrong_name_is_refused_with_its_reason(uri: str, reason: str) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_identity(uri)
    assert reason in str(caught.value)


@given(st.text())
def test_any_text_is_a_name_or_the_one_documented_error(text: str) -> None:
    for candidate in (text, f"spiffe://{text}", f"spiffe://a/ns/{text}/sa/b", f"spiffe://a/ns/a/sa/{text}"):
        try:
            identity = parse_identity(candidate)
        except IdentityError:
            continue
        assert identity.uri == candidate


@given(LABEL, LABEL)
def test_what_is_built_can_be_parsed(namespace: str, account: str) -> None:
    identity = workload_identity("cluster.local", namespace, account)
    assert parse_identity(identity.uri) == identity


@pytest.mark.parametrize("domain", ["", "A.b", "a b", "a/b", "a:1", "é", "a" * 256])
def test_a_wrong_trust_domain_is_refused(domain: str) -> None:
    with pytest.raises(IdentityError, match="trust domain"):
        parse_trust_domain(domain)
