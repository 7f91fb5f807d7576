from __future__ import annotations

from pathlib import Path

import pytest

from retia.control.settings import SettingsError, parse


def test_the_index_shifts_the_ports(tmp_path: Path) -> None:
    settings = parse(["--home", str(tmp_path), "--index", "3"])
    assert (settings.xds_port, settings.health_port) == (15312, 15314)
    assert settings.listen == "127.0.0.1"
    assert settings.join_address == ""


def test_the_index_that_was_written_down_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "index").write_text("2\n")
    assert parse(["--home", str(tmp_path)]).index == 2
    assert parse(["--home", str(tmp_path), "--index", "5"]).index == 5


def test_an_advertised_address_opens_the_port_to_others(tmp_path: Path) -> None:
    settings = parse(["--home", str(tmp_path), "--advertise-address", "10.0.0.5"])
    assert settings.listen == "0.0.0.0"
    assert settings.join_address == "10.0.0.5:15012"
    assert parse(["--home", str(tmp_path), "--listen", "fd00::1"]).join_address == "[fd00::1]:15012"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--index", "16"], "--index 16: a mesh's index is 0 to 15"),
        (["--port", "70000"], "--port 70000: ports are 1 to 65535"),
        (["--listen", "example"], "--listen example: an IP address is needed"),
        (["--lease", "0.1"], "--lease 0.1: a lease is 0.3 to 3600 seconds"),
        (["--certificate-lifetime", "1"], "--certificate-lifetime 1: 2 seconds to 90 days are allowed"),
        (["--config", "/nowhere"], "--config /nowhere: no such directory"),
        (["--trust-domain", "A"], "--trust-domain: trust domain 'A': only lower-case letters"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(["--home", str(tmp_path), *arguments])
    assert str(caught.value).startswith(sentence)


def test_a_home_too_long_for_sockets_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unix sockets may have 107; choose a shorter path"):
        parse(["--home", str(tmp_path / ("x" * 100))])
