"""The host's certificate on disk: used while it lives, and remembered as lapsed afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from retia.agent.identity import HostIdentityKeeper
from retia.agent.paths import Paths
from retia.authority.keys import key_to_pem, make_key
from retia.authority.requests import make_request
from tests.support.authorities import DOMAIN, authority_in


@pytest.mark.parametrize(("age", "usable"), [(timedelta(0), True), (timedelta(hours=2), False)])
def test_a_lapsed_certificate_is_not_used_and_its_end_stays_known(
    tmp_path: Path, age: timedelta, usable: bool
) -> None:
    signed_at = datetime.now(UTC) - age
    authority = authority_in(tmp_path, signed_at, lifetime=timedelta(hours=1))
    paths = Paths(tmp_path / "home")
    paths.prepare()
    key = make_key()
    signed = authority.sign_host(make_request(key), "h1", signed_at)
    (paths.state / "host.key").write_bytes(key_to_pem(key).reveal())
    (paths.state / "host.pem").write_bytes(signed.chain_pem)
    (paths.state / "bundle.pem").write_bytes(signed.chain_pem)
    (paths.state / "trust-domain").write_text(DOMAIN)
    identity = HostIdentityKeeper(paths, "h1", "127.0.0.1:1", "")
    assert identity.load() is usable
    assert identity.expiry == signed.life.not_after.timestamp()
