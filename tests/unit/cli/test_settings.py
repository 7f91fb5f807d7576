"""retia settings: what is shown, changed and refused."""

from __future__ import annotations

from tests.unit.api.fakes import FakeBackend
from tests.unit.cli.conftest import Run


def test_the_settings_are_shown(backend: FakeBackend, run: Run) -> None:
    result = run("settings", "-o", "json")

    assert result.code == 0
    assert result.json["retry_budget_percent"] == 20.0


def test_some_are_changed(backend: FakeBackend, run: Run) -> None:
    result = run("settings", "outbound_allow_any=false", "connect-timeout-s=5", "-o", "json")

    assert result.code == 0
    found = result.json
    assert found["outbound_allow_any"] is False
    assert found["connect_timeout_s"] == 5.0


def test_what_cannot_be_set_is_said(backend: FakeBackend, run: Run) -> None:
    unknown = run("settings", "trust_domain=x")
    broken = run("settings", "connect_timeout_s=soon")
    shapeless = run("settings", "outbound_allow_any")

    assert "there is none of that name" in unknown.err
    assert "connect_timeout_s" in broken.err
    assert "NAME=VALUE" in shapeless.err
    assert unknown.code == broken.code == shapeless.code != 0
