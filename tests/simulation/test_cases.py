"""The cases against the generated resources. ``tests/integration/simulation`` runs them in real Envoys."""

from __future__ import annotations

import pytest

from retia.explain import lines
from retia.model.finding import Level
from tests.simulation.case import Case, cases_for
from tests.simulation.meshes import Simulated
from tests.simulation.outcome import complaints
from tests.simulation.predict import predict


@pytest.mark.parametrize("case", cases_for("generated"), ids=lambda c: c.id)
def test_case(case: Case) -> None:
    assert not case.broken, case.broken
    check_findings(case)
    problems = []
    for call, outcome in predict(case):
        found = complaints(call, outcome)
        if found:
            path = lines(outcome.path) if outcome.path is not None else []
            problems.append(
                "\n".join(
                    [
                        f"call {call.number}: {call.method or 'connect'} {call.url or call.connect} "
                        f"from {call.sender or call.at or 'anybody'} {dict(call.headers) or ''}",
                        *(f"  {problem}" for problem in found),
                        "  path:",
                        *(f"    {line}" for line in path),
                    ]
                )
            )
    assert not problems, f"\n{case.id}\n" + "\n".join(problems)


def check_findings(case: Case) -> None:
    """What applying the case's objects says."""
    findings = Simulated(case).findings
    if case.findings is None:
        errors = [str(f) for f in findings if f.level is Level.ERROR]
        assert not errors, f"\n{case.id}: the configuration is refused\n" + "\n".join(errors)
    else:
        said = "\n".join(str(f) for f in findings)
        assert sorted({f.code for f in findings}) == sorted(case.findings), f"\n{case.id}\n{said}"
