"""The authority's life: made once, read ever after, never replaced silently."""

from __future__ import annotations

import json
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from retia.authority.authority import Authority
from retia.authority.certificates import from_pem, uris_of
from retia.authority.errors import AuthorityError, RequestError
from retia.authority.keys import key_from_pem, make_key, public_bytes
from retia.authority.requests import make_request
from retia.identity.spiffe import IdentityError, TrustDomain
from tests.support.authorities import DOMAIN, NOW, Ca, authority_in, write_own

REQUEST = make_request(make_key())


def test_it_is_made_once(tmp_path: Path) -> None:
    first, second = authority_in(tmp_path), authority_in(tmp_path, NOW + timedelta(days=30))
    assert first.fingerprint == second.fingerprint
    assert first.bundle_pem == second.bundle_pem
    assert first.life == second.life
    assert first.root_life.not_after == NOW + timedelta(days=3650)


def test_its_files_are_its_owners_alone(tmp_path: Path) -> None:
    authority_in(tmp_path)
    directory = tmp_path / "authority"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {p.name: oct(stat.S_IMODE(p.stat().st_mode)) for p in directory.iterdir()} == dict.fromkeys(
        ["authority.json", "root.key", "root.pem", "intermediate.key", "intermediate.pem"], "0o600"
    )
    assert list(tmp_path.iterdir()) == [directory]


def test_it_signs_hosts_and_workloads_by_the_name_it_is_told(tmp_path: Path) -> None:
    authority = authority_in(tmp_path)
    host = authority.sign_host(REQUEST, "node-1", NOW)
    workload = authority.sign_workload(REQUEST, "shop", "cart", NOW)
    for signed, uri in (
        (host, "spiffe://cluster.local/retia/host/node-1"),
        (workload, "spiffe://cluster.local/ns/shop/sa/cart"),
    ):
        certificate = from_pem(signed.chain_pem, "chain")[0]
        assert signed.identity == uri
        assert uris_of(certificate) == (uri,)
        assert signed.serial == certificate.serial_number


@pytest.mark.parametrize("host", ["", "a/b", "..", "a b"])
def test_wrong_names_are_not_signed(tmp_path: Path, host: str) -> None:
    authority = authority_in(tmp_path)
    with pytest.raises(IdentityError):
        authority.sign_host(REQUEST, host, NOW)
    with pytest.raises(IdentityError):
        authority.sign_workload(REQUEST, "shop", host, NOW)
    with pytest.raises(RequestError):
        authority.sign_host(b"", "node-1", NOW)


def test_the_controllers_own_pair_shows_the_root(tmp_path: Path) -> None:
    authority = authority_in(tmp_path)
    pair = authority.controller_pair(NOW)
    chain = from_pem(pair.chain_pem, "chain")
    assert uris_of(chain[0]) == ("spiffe://cluster.local/retia/controller",)
    assert chain[-1] == from_pem(authority.bundle_pem, "bundle")[0]
    key = key_from_pem(pair.key_pem, "pair")
    assert public_bytes(key.public_key()) == public_bytes(chain[0].public_key())
    assert "BEGIN" not in repr(pair.key_pem)


def test_lifetimes_are_set_once_for_all(tmp_path: Path) -> None:
    authority = authority_in(tmp_path, lifetime=timedelta(minutes=1))
    signed = authority.sign_workload(REQUEST, "shop", "cart", NOW)
    assert signed.life.issued == NOW
    assert signed.life.not_after == NOW + timedelta(minutes=1)
    with pytest.raises(ValueError, match="certificate lifetime is"):
        authority_in(tmp_path, lifetime=timedelta(days=400))


def test_the_intermediate_is_renewed_at_half_its_life(tmp_path: Path) -> None:
    authority = authority_in(tmp_path)
    before = authority.sign_workload(REQUEST, "shop", "cart", NOW)
    assert not authority.maintain(NOW + timedelta(days=182))
    later = NOW + timedelta(days=183)
    assert authority.maintain(later)
    after = authority.sign_workload(REQUEST, "shop", "cart", later)
    root = from_pem(authority.bundle_pem, "bundle")[0]
    old, new = (from_pem(s.chain_pem, "chain")[1] for s in (before, after))
    assert old != new
    for intermediate in (old, new):
        intermediate.verify_directly_issued_by(root)
    assert authority_in(tmp_path, later).life == authority.life


def test_an_expired_intermediate_is_renewed_at_start(tmp_path: Path) -> None:
    authority_in(tmp_path)
    later = NOW + timedelta(days=800)
    signed = authority_in(tmp_path, later).sign_workload(REQUEST, "shop", "cart", later)
    assert signed.life.not_after == later + timedelta(days=1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: (d / "intermediate.pem").unlink(),
        lambda d: (d / "intermediate.key").write_bytes((d / "root.key").read_bytes()),
        lambda d: (d / "intermediate.pem").write_text("hello"),
    ],
    ids=["missing", "key without its certificate", "garbage"],
)
def test_a_lost_intermediate_is_made_anew_and_noted(tmp_path: Path, damage: object) -> None:
    first = authority_in(tmp_path)
    assert callable(damage)
    damage(tmp_path / "authority")
    second = authority_in(tmp_path)
    assert second.fingerprint == first.fingerprint
    assert "has been made anew" in second.notes[0]
    second.sign_workload(REQUEST, "shop", "cart", NOW)


@pytest.mark.parametrize("name", ["root.pem", "root.key", "authority.json"])
def test_a_lost_root_is_never_made_anew(tmp_path: Path, name: str) -> None:
    authority_in(tmp_path)
    (tmp_path / "authority" / name).unlink()
    with pytest.raises(AuthorityError, match=rf"incomplete .{name} missing.; restore it from a backup"):
        authority_in(tmp_path)
    assert not (tmp_path / "authority" / name).exists()


@pytest.mark.parametrize("name", ["root.pem", "root.key", "authority.json"])
def test_a_damaged_root_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    authority_in(tmp_path)
    (tmp_path / "authority" / name).write_text("[]")
    with pytest.raises(AuthorityError, match=name):
        authority_in(tmp_path)


def test_a_key_of_another_root_is_refused(tmp_path: Path) -> None:
    authority_in(tmp_path)
    authority_in(tmp_path / "other")
    for name in ("root.key", "root.pem"):
        (tmp_path / "x").write_bytes((tmp_path / "authority" / name).read_bytes())
        (tmp_path / "authority" / name).write_bytes((tmp_path / "other/authority" / name).read_bytes())
        with pytest.raises(AuthorityError, match="is not the key of"):
            authority_in(tmp_path)
        (tmp_path / "authority" / name).write_bytes((tmp_path / "x").read_bytes())


def test_a_key_that_others_can_read_is_closed_and_noted(tmp_path: Path) -> None:
    authority_in(tmp_path)
    key = tmp_path / "authority/root.key"
    key.chmod(0o644)
    assert "it is 0600 now" in authority_in(tmp_path).notes[0]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_mesh_keeps_its_trust_domain(tmp_path: Path) -> None:
    authority_in(tmp_path)
    with pytest.raises(
        AuthorityError, match=r"that of trust domain 'cluster.local', but the settings say 'x'"
    ):
        authority_in(tmp_path, domain="x")


def test_a_clock_before_the_root_is_reported(tmp_path: Path) -> None:
    authority_in(tmp_path)
    with pytest.raises(AuthorityError, match="this clock says 2020-"):
        authority_in(tmp_path, NOW - timedelta(days=3652))
    with pytest.raises(AuthorityError, match=r"root\.pem expired at"):
        authority_in(tmp_path, NOW + timedelta(days=3650))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    authority_in(tmp_path)
    manifest = tmp_path / "authority/authority.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(AuthorityError, match="format 99, written by a newer Retia"):
        authority_in(tmp_path)


def test_an_authority_does_not_change_its_kind_nor_its_root(tmp_path: Path) -> None:
    root = Ca("root")
    files = write_own(tmp_path / "cacerts", Ca("signing", root), root)
    authority_in(tmp_path / "made")
    with pytest.raises(AuthorityError, match="is self-made, but the settings ask for one that is own"):
        Authority.open(tmp_path / "made/authority", DOMAIN, NOW, own_directory=files)
    Authority.open(tmp_path / "authority", DOMAIN, NOW, own_directory=files)
    with pytest.raises(AuthorityError, match="incomplete"):
        authority_in(tmp_path)
    other = Ca("root")
    write_own(files, Ca("signing", other), other)
    with pytest.raises(AuthorityError, match="no longer among the trusted"):
        Authority.open(tmp_path / "authority", DOMAIN, NOW, own_directory=files)
    (files / "root-cert.pem").write_bytes(other.pem + root.pem)
    assert Authority.open(tmp_path / "authority", DOMAIN, NOW, own_directory=files)


def test_an_interrupted_start_leaves_nothing_that_hinders_the_next(tmp_path: Path) -> None:
    (tmp_path / f".authority.{os.getpid()}.new").mkdir()
    (tmp_path / f".authority.{os.getpid()}.new/root.key").write_text("half")
    (tmp_path / "authority").mkdir()
    assert authority_in(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["authority"]


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuthorityError, match="the authority cannot be made in"):
        Authority.open(tmp_path / "file" / "authority", TrustDomain("a"), NOW)
