"""What of a Secret can be used, and what is said of one that can't."""

from __future__ import annotations

import pytest

from retia.policy.edge.secrets import key_pair, trust
from tests.support.certificates import Pair, secret
from tests.support.world import World

OWN, OTHER, CLIENTS = Pair("own.example"), Pair("other.example"), Pair("clients.example")


def test_a_certificate_with_its_key() -> None:
    pair = key_pair(World().apply(OWN.secret("it")).edge().view, "default/it")
    assert pair.wrong == ""
    assert pair.chain.decode() == OWN.chain
    assert pair.key is not None
    assert pair.key.reveal().decode() == OWN.private
    assert OWN.private not in repr(pair)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"tls.crt": OWN.chain}, "has no private key"),
        ({"key": OWN.private}, "has no certificate"),
        ({"cert": OWN.chain, "key": ""}, "has no private key"),
        ({"cert": "nonsense", "key": OWN.private}, "its certificate can't be read"),
        ({"cert": OWN.chain, "key": "nonsense"}, "its private key can't be read"),
        ({"cert": OWN.chain, "key": OTHER.private}, "its private key is not that of its certificate"),
    ],
)
def test_what_cannot_be_used(values: dict[str, str], wrong: str) -> None:
    pair = key_pair(World().apply(secret("it", values)).edge().view, "default/it")
    assert wrong in pair.wrong
    assert pair.key is None


def test_a_secret_that_is_not_there() -> None:
    assert key_pair(World().edge().view, "default/it").wrong == "there is no Secret default/it"


@pytest.mark.parametrize(
    ("secrets", "found"),
    [
        ({"it": {"ca.crt": CLIENTS.chain}}, CLIENTS),
        ({"it": {"cacert": CLIENTS.chain}}, CLIENTS),
        ({"it": {"ca.crt": OTHER.chain}, "it-cacert": {"cacert": CLIENTS.chain}}, CLIENTS),
        ({"it-cacert": {"tls.crt": CLIENTS.chain}}, CLIENTS),
        ({"it-cacert": {"note": "x"}, "it": {"ca.crt": CLIENTS.chain}}, CLIENTS),
    ],
)
def test_where_the_authority_is_looked_for(secrets: dict[str, dict[str, str]], found: Pair) -> None:
    world = World()
    for name, values in secrets.items():
        world.apply(secret(name, values))
    trusted = trust(world.edge().view, "default/it")
    assert (trusted.wrong, trusted.authority.decode()) == ("", found.chain)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"tls.crt": OWN.chain}, "has an authority"),
        ({"ca.crt": "nonsense"}, "its authority can't be read"),
        ({"ca.crt": OWN.chain, "ca.crl": "nonsense"}, "its revocation list can't be read"),
    ],
)
def test_no_authority(values: dict[str, str], wrong: str) -> None:
    assert wrong in trust(World().apply(secret("it", values)).edge().view, "default/it").wrong
