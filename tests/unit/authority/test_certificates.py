"""Certificates as they come out."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from retia.authority.certificates import (
    Issuer,
    fingerprint,
    from_pem,
    life_of,
    life_of_chain,
    make_leaf,
    make_root,
    uris_of,
)
from retia.authority.errors import AuthorityError
from retia.authority.keys import make_key
from retia.authority.requests import make_request
from retia.identity.profiles import ROOT, leaf
from tests.support.authorities import NOW, Ca, authority_in

URI = "spiffe://cluster.local/ns/shop/sa/cart"


@pytest.fixture
def chain(tmp_path: Path) -> tuple[x509.Certificate, ...]:
    authority = authority_in(tmp_path)
    signed = authority.sign_workload(make_request(make_key()), "shop", "cart", NOW)
    return from_pem(signed.chain_pem + authority.bundle_pem, "chain")


def test_a_workloads_chain_leads_to_the_root(chain: tuple[x509.Certificate, ...]) -> None:
    certificate, intermediate, root = chain
    certificate.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert len({c.serial_number for c in chain}) == 3


def test_a_leaf_has_one_critical_uri_name_and_no_subject(chain: tuple[x509.Certificate, ...]) -> None:
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(URI)]
    assert uris_of(chain[0]) == (URI,)
    assert not list(chain[0].subject)
    assert uris_of(chain[1]) == ()


def test_a_leaf_signs_nothing_and_serves_both_sides(chain: tuple[x509.Certificate, ...]) -> None:
    extensions = chain[0].extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_authorities_are_limited_in_depth(chain: tuple[x509.Certificate, ...]) -> None:
    for certificate, depth in ((chain[1], 0), (chain[2], 1)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(True, depth)
        assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_key_identifiers_link_the_chain(chain: tuple[x509.Certificate, ...]) -> None:
    for below, above in pairwise(chain):
        link = below.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        own = above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        assert link.key_identifier == own.digest


def test_a_leaf_does_not_outlive_its_issuer() -> None:
    key = make_key()
    issuer = Issuer(make_root(ROOT, "r", key, NOW), key)
    end = issuer.certificate.not_valid_after_utc
    late = make_leaf(leaf("workload"), URI, key.public_key(), issuer, end - timedelta(hours=1))
    assert late.not_valid_after_utc == end
    with pytest.raises(AuthorityError, match="expired at 2040"):
        make_leaf(leaf("workload"), URI, key.public_key(), issuer, end)


def test_an_issuer_without_key_identifier_is_linked_all_the_same() -> None:
    ca = Ca("plain")
    certificate = make_leaf(
        leaf("workload"), URI, make_key().public_key(), Issuer(ca.certificate, ca.key), NOW
    )
    expected = x509.SubjectKeyIdentifier.from_public_key(ca.key.public_key()).digest
    link = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert link.key_identifier == expected


def test_lives_and_fingerprints_are_read_back(chain: tuple[x509.Certificate, ...], tmp_path: Path) -> None:
    authority = authority_in(tmp_path)
    assert fingerprint(chain[2]) == chain[2].fingerprint(hashes.SHA256()) == authority.fingerprint
    signed = authority.sign_host(make_request(make_key()), "h", NOW)
    assert life_of_chain(signed.chain_pem) == signed.life
    assert life_of(chain[0]).not_after == NOW + timedelta(days=1)


def test_an_issuer_does_not_print_its_key() -> None:
    ca = Ca("mine")
    assert repr(Issuer(ca.certificate, ca.key)) == "Issuer(CN=mine)"


def test_text_that_holds_no_certificate_is_refused() -> None:
    with pytest.raises(AuthorityError, match=r"x\.pem: this holds no certificate"):
        from_pem(b"hello", "x.pem")
