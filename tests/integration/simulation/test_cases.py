"""The cases in real Envoys, with real servers behind them. The format: ``tests/simulation/README.md``."""

from __future__ import annotations

import asyncio

import pytest

from retia.explain import lines
from tests.integration.simulation.fleet import Fleet
from tests.simulation.case import Case, cases_for
from tests.simulation.predict import predict


@pytest.mark.parametrize("case", cases_for("real"), ids=lambda c: c.id)
def test_case(case: Case, fleet: Fleet, loop: asyncio.AbstractEventLoop) -> None:
    assert not case.broken, case.broken
    problems = loop.run_until_complete(_run(case, fleet))
    assert not problems, f"\n{case.id}\n" + "\n".join(problems)


async def _run(case: Case, fleet: Fleet) -> list[str]:
    problems = []
    async for call, outcome, found in fleet.run(case):
        if found:
            predicted = {c.number: o for c, o in predict(case)}.get(call.number)
            path = lines(predicted.path) if predicted is not None and predicted.path is not None else []
            problems.append(
                "\n".join(
                    [
                        f"call {call.number}: {call.method or 'connect'} {call.url or call.connect} "
                        f"from {call.sender or call.at or 'anybody'} {dict(call.headers) or ''}",
                        *(f"  {problem}" for problem in found),
                        f"  really: status {outcome.status}, {outcome.shares}, {outcome.refused}",
                        "  predicted path:",
                        *(f"    {line}" for line in path),
                    ]
                )
            )
    return problems
