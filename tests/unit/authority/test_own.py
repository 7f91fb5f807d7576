"""A user's own authority, and everything that can be wrong with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from retia.authority import own
from retia.authority.authority import Authority
from retia.authority.certificates import from_pem
from retia.authority.errors import AuthorityError
from retia.authority.keys import make_key
from retia.authority.requests import make_request
from tests.support.authorities import DOMAIN, NOW, Ca, write_own

ROOT = Ca("root")
MIDDLE = Ca("middle", ROOT)
SIGNING = Ca("signing", MIDDLE)


def test_a_chain_of_three_signs_and_is_sent_without_the_root(tmp_path: Path) -> None:
    files = write_own(tmp_path / "cacerts", SIGNING, ROOT, MIDDLE)
    authority = Authority.open(tmp_path / "authority", DOMAIN, NOW, own_directory=files)
    signed = authority.sign_workload(make_request(make_key()), "shop", "cart", NOW)
    chain = from_pem(signed.chain_pem, "chain")
    assert chain[1:] == (SIGNING.certificate, MIDDLE.certificate)
    chain[0].verify_directly_issued_by(SIGNING.certificate)
    assert from_pem(authority.bundle_pem, "bundle") == (ROOT.certificate,)
    assert not authority.maintain(NOW + timedelta(days=90))


def test_a_root_may_sign_directly(tmp_path: Path) -> None:
    files = write_own(tmp_path / "cacerts", ROOT, ROOT)
    authority = Authority.open(tmp_path / "authority", DOMAIN, NOW, own_directory=files)
    signed = authority.sign_workload(make_request(make_key()), "shop", "cart", NOW)
    assert len(from_pem(signed.chain_pem, "chain")) == 1


def test_the_key_is_not_copied(tmp_path: Path) -> None:
    files = write_own(tmp_path / "cacerts", SIGNING, ROOT, MIDDLE)
    Authority.open(tmp_path / "authority", DOMAIN, NOW, own_directory=files)
    assert [p.name for p in (tmp_path / "authority").iterdir()] == ["authority.json"]


def test_several_roots_are_trusted_and_the_one_in_use_comes_first(tmp_path: Path) -> None:
    files = write_own(tmp_path, SIGNING, ROOT, MIDDLE)
    (files / "root-cert.pem").write_bytes(Ca("next").pem + ROOT.pem)
    loaded = own.load(files, NOW)
    assert loaded.roots[0] == ROOT.certificate
    assert len(loaded.roots) == 2


def test_the_chain_file_may_hold_more_than_needed(tmp_path: Path) -> None:
    files = write_own(tmp_path, SIGNING, ROOT, SIGNING, Ca("stranger"), ROOT, MIDDLE)
    assert own.load(files, NOW).between == (SIGNING.certificate, MIDDLE.certificate)


def test_a_key_that_others_can_read_is_noted(tmp_path: Path) -> None:
    files = write_own(tmp_path, SIGNING, ROOT, MIDDLE)
    assert own.load(files, NOW).notes == ()
    (files / "ca-key.pem").chmod(0o644)
    assert "can be read by others (mode 0644); chmod 600 it" in own.load(files, NOW).notes[0]


SHORT = Ca("short", path_length=0)
LEAF = Ca("leaf", ROOT, ca=False)
MUTE = Ca("mute", ROOT, signs=False)
OLD = Ca("old", ROOT, not_before=NOW - timedelta(days=200))
FUTURE = Ca("future", ROOT, not_before=NOW + timedelta(days=1))
BARE = Ca("bare", ROOT, constraints=False)


@pytest.mark.parametrize(
    ("signing", "root", "between", "reason"),
    [
        (SIGNING, ROOT, (), "no trusted root is reached: 'CN=signing' was issued by 'CN=middle'"),
        (SIGNING, Ca("root"), (MIDDLE,), "no trusted root is reached: 'CN=middle' was issued by 'CN=root'"),
        (LEAF, ROOT, (), "'CN=leaf' is no certificate authority .its CA bit"),
        (BARE, ROOT, (), "'CN=bare' is no certificate authority .it has no basic constraints"),
        (MUTE, ROOT, (), "'CN=mute' may not sign certificates"),
        (OLD, ROOT, (), "'CN=old' expired at 2030-02-2"),
        (FUTURE, ROOT, (), "'CN=future' is valid only from 2030-06-02"),
        (Ca("below", SHORT), SHORT, (), "'CN=short' allows 0 authorities below it, but there are 1"),
    ],
    ids=["no chain", "wrong root", "leaf", "bare", "may not sign", "expired", "future", "too deep"],
)
def test_a_wrong_chain_is_refused(
    tmp_path: Path, signing: Ca, root: Ca, between: tuple[Ca, ...], reason: str
) -> None:
    with pytest.raises(AuthorityError, match=reason):
        own.load(write_own(tmp_path, signing, root, *between), NOW)


@pytest.mark.parametrize("name", ["ca-cert.pem", "ca-key.pem", "root-cert.pem"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    files = write_own(tmp_path, SIGNING, ROOT, MIDDLE)
    (files / name).unlink()
    with pytest.raises(AuthorityError, match=f"{name} is missing"):
        own.load(files, NOW)


@pytest.mark.parametrize("name", ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    files = write_own(tmp_path, SIGNING, ROOT, MIDDLE)
    (files / name).write_text("hello")
    with pytest.raises(AuthorityError, match=name):
        own.load(files, NOW)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    files = write_own(tmp_path, SIGNING, ROOT, MIDDLE)
    (files / "ca-key.pem").write_bytes(MIDDLE.key_pem)
    with pytest.raises(AuthorityError, match=r"ca-key\.pem is not the key of"):
        own.load(files, NOW)
