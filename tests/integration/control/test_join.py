"""A host joins and stays joined: the agent's own identity code against a real controller."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.exceptions import StreamTerminatedError

from retia._generated import agent_pb2 as pb
from retia.agent import identity as agent_identity
from retia.agent.identity import HostIdentityKeeper, IdentityUnavailable, WorkloadKeys
from retia.agent.paths import Paths
from retia.agent.rpc import RPC_ERRORS, describe
from retia.aio.clock import SystemClock
from retia.control.main import Controller
from retia.identity.rotation import skew_problem

if TYPE_CHECKING:
    from tests.integration.control.conftest import Agent, RunningController


class Shifted(SystemClock):
    """A clock that is wrong by so many seconds."""

    def __init__(self, shift_s: float) -> None:
        self._shift_s = shift_s

    def now(self) -> float:
        return time.time() + self._shift_s


Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts controllers, each with a state and perhaps a clock of its own."""
    async with AsyncExitStack() as opened:

        async def one(shift_s: float = 0.0, **settings: Any) -> RunningController:
            from tests.integration.control.conftest import RunningController

            home = opened.enter_context(tempfile.TemporaryDirectory(prefix="retia-", dir="/tmp"))
            running = RunningController(Path(home), **settings)
            running.make = lambda s: _with_clock(s, shift_s)
            await running.start()
            opened.push_async_callback(running.stop)
            return running

        yield one


def _with_clock(settings: Any, shift_s: float) -> Controller:
    controller = Controller(settings)
    controller.clock = Shifted(shift_s)
    return controller
