"""A state folder, a controller made of dictionaries in it, and a way to run a command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retia.cli import main
from tests.unit.api.fakes import FakeBackend, serving


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETIA_HOME", str(tmp_path / "h"))
    monkeypatch.delenv("RETIA_AGENT_SOCKET", raising=False)
    return tmp_path / "h"


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def invoke(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main.invoke(list(arguments))
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke


@pytest.fixture
def backend(home: Path) -> Iterator[FakeBackend]:
    """A controller for the state folder."""
    fake = FakeBackend()
    with serving(fake, home / "run" / "api.sock"):
        yield fake
