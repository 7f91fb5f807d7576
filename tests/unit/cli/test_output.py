"""What all commands share in showing."""

from __future__ import annotations

import pytest

from retia.api.schema import Finding
from retia.cli import output


def test_of_very_many_findings_the_errors_come_first_and_the_rest_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [Finding(code="RT0310", level="warning", message=f"no. {n}") for n in range(150)]
    output.show_findings([*many, Finding(code="RT0104", level="error", message="is wrong")])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) == output.SHOWN_FINDINGS + 1
    assert lines[-1] == "and 51 more findings"
