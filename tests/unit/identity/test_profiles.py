"""What certificates may do, and from when until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from retia.identity.profiles import INTERMEDIATE, LONGEST_LIFETIME, ROOT, SHORTEST_LIFETIME, Usage, leaf

NOW = datetime(2030, 1, 1, 12, 0, 0, 999, tzinfo=UTC)


def test_a_certificate_is_valid_for_hosts_whose_clock_is_five_minutes_off() -> None:
    not_before, not_after = leaf("workload").validity(NOW)
    behind, ahead = NOW - timedelta(minutes=5), NOW + timedelta(minutes=5)
    assert not_before < behind < ahead < not_after


def test_two_such_hosts_accept_one_another() -> None:
    issued_by_the_fast_one = leaf("workload").validity(NOW + timedelta(minutes=5))
    assert issued_by_the_fast_one[0] <= NOW - timedelta(minutes=5) + timedelta(seconds=1)


def test_a_leaf_lives_a_day_and_signs_nothing() -> None:
    profile = leaf("workload")
    not_before, not_after = profile.validity(NOW)
    assert not_after == datetime(2030, 1, 2, 12, tzinfo=UTC)
    assert not_before == datetime(2030, 1, 1, 11, 50, tzinfo=UTC)
    assert not profile.authority
    assert profile.usages == {Usage.DIGITAL_SIGNATURE, Usage.SERVER_AUTH, Usage.CLIENT_AUTH}


def test_root_and_intermediate_only_sign() -> None:
    assert ROOT.path_length == 1
    assert INTERMEDIATE.path_length == 0
    for profile in (ROOT, INTERMEDIATE):
        assert profile.authority
        assert profile.usages == {Usage.KEY_CERT_SIGN, Usage.CRL_SIGN}
    assert ROOT.lifetime > 2 * INTERMEDIATE.lifetime


@pytest.mark.parametrize("lifetime", [SHORTEST_LIFETIME, LONGEST_LIFETIME])
def test_lifetimes_up_to_the_limits_are_accepted(lifetime: timedelta) -> None:
    assert leaf("host", lifetime).lifetime == lifetime


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), LONGEST_LIFETIME + timedelta(1)])
def test_lifetimes_beyond_the_limits_are_refused(lifetime: timedelta) -> None:
    with pytest.raises(ValueError, match="certificate lifetime is"):
        leaf("host", lifetime)
