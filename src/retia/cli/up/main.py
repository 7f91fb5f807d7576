"""The supervisor's process: starts everything, listens for what is to change, stops everything.

It is run by ``retia up`` itself, or in a session of its own as ``python -m retia.cli.up.main`` where that was
told to detach; then it reports on a pipe until the mesh is up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retia.cli.errors import FAILED, INTERRUPTED, CliError
from retia.cli.session import Session
from retia.cli.up import spec, talk
from retia.cli.up.errors import UpError
from retia.cli.up.plan import Plan
from retia.cli.up.platform import Platform
from retia.cli.up.settings import PlatformSettings
from retia.cli.up.spec import Wanted
from retia.cli.up.supervisor import Supervisor

Say = Callable[[str], None]


@dataclass(slots=True)
class Show:
    """What the supervisor tells its surroundings; each a function that returns at once."""

    say: Say
    """A message for a person."""
    up: Callable[[Supervisor, Platform, float], None]
    """The mesh is up, this many seconds after the start."""
    tick: Callable[[Supervisor], None]
    """Called some times a second from then on."""
    stopping: Callable[[], None]


TICK_S = 0.2
LAST_WORDS_S = 0.05
"""For the answer to ``down`` to be on its way before the process ends; who asked waits for that end too."""


class Main:
    """One supervisor's life."""

    def __init__(self, session: Session, settings: PlatformSettings, show: Show) -> None:
        self._session = session
        self._settings = settings
        self._show = show
        self._stop = asyncio.Event()
        self._interrupted = False
        self._supervisor: Supervisor | None = None
        self._platform = Platform(session, settings, self._tell)
        self._stopped: list[str] = []
        self._ended = asyncio.Event()
        self._listeners: list[Say] = []
        """Those who said ``down`` and watch how it goes."""

    async def run(self, wanted: Wanted) -> None:
        """Until a signal or ``down``; everything is stopped when this returns or raises."""
        self._started = time.monotonic()
        self._on_signals()
        try:
            with _only_one(self._session):
                await self._run(wanted)
        except ExceptionGroup as error:
            raise _first(error) from error

    async def _run(self, wanted: Wanted) -> None:
        server: asyncio.Server | None = None
        keeping: list[asyncio.Task[None]] = []
        try:
            info = await self._until_stopped(self._platform.start())
            supervisor = Supervisor(self._session, self._tell, info.capture)
            self._supervisor = supervisor
            keeping = [
                asyncio.create_task(supervisor.run(), name="supervisor"),
                asyncio.create_task(self._platform.watch(), name="platform"),
            ]
            await self._until_stopped(supervisor.clear_leftovers())
            await self._until_stopped(supervisor.apply(wanted, self._tell))
            server = await talk.serve(self._session.up_socket, self._on_request)
            self._show.up(supervisor, self._platform, time.monotonic() - self._started)
            while not self._stop.is_set():
                self._show.tick(supervisor)
                await self._pause(keeping)
        except _StoppedError:
            pass
        finally:
            self._show.stopping()
            await self._stop_all(server, keeping)

    async def _pause(self, keeping: list[asyncio.Task[None]]) -> None:
        for task in keeping:
            if task.done():
                task.result()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._stop.wait()

    async def _stop_all(self, server: asyncio.Server | None, keeping: list[asyncio.Task[None]]) -> None:
        supervisor = self._supervisor
        if supervisor is not None:
            self._stopped = [running.workload for running in supervisor.instances]
            await supervisor.stop()
        self._stopped += await self._platform.stop()
        self._ended.set()
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        if server is not None:
            server.close()
            await asyncio.sleep(LAST_WORDS_S)
        with contextlib.suppress(OSError):
            self._session.up_socket.unlink(missing_ok=True)

    async def _until_stopped(self, work: Any) -> Any:
        """``work``'s result, unless a signal comes first: then it is cancelled."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _StoppedError
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _tell(self, text: str) -> None:
        self._show.say(text)
        for listener in self._listeners:
            listener(text)

    # -- signals and requests

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set() and number == signal.SIGINT:
            if not self._interrupted:
                self._interrupted = True
                self._show.say("ending everything at once")
                if self._supervisor is not None:
                    self._supervisor.kill()
                self._platform.kill()
            return
        if not self._stop.is_set():
            self._show.say("stopping; Ctrl-C once more ends everything at once")
        self._stop.set()

    async def _on_request(self, request: dict[str, Any], say: Say) -> Any:
        supervisor = self._supervisor
        if supervisor is None:
            raise CliError("the mesh is still starting; try again in a moment")
        operation = request.get("op")
        if operation == "apply":
            plan = await self._apply(supervisor, request, say)
            return {"plan": str(plan), "changed": not plan.empty}
        if operation == "status":
            return [asdict(state) for state in supervisor.status()]
        if operation == "down":
            self._listeners.append(say)
            self._stop.set()
            await self._ended.wait()
            return self._stopped
        raise CliError(f"the supervisor knows no request {operation!r}; is it of another version?")

    async def _apply(self, supervisor: Supervisor, request: dict[str, Any], say: Say) -> Plan:
        try:
            wanted = spec.resolve(
                str(request["text"]), str(request["path"]), Path(request["folder"]), request["environ"]
            )
        except (KeyError, TypeError) as error:
            raise CliError(f"the request lacks {error}; are the versions equal?") from error

        def both(text: str) -> None:
            say(text)
            self._show.say(text)

        try:
            return await supervisor.apply(wanted, both)
        except ExceptionGroup as error:
            raise _first(error) from error


class _StoppedError(Exception):
    """A signal came while something was under way."""


@contextlib.contextmanager
def _only_one(session: Session) -> Iterator[None]:
    """Two supervisors of one RETIA_HOME would fight; the lock goes with the process, however it ends."""
    session.prepare()
    descriptor = os.open(session.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UpError(
                f"another 'retia up' is starting or stopping for {session.home}; wait for it, or use another "
                "RETIA_HOME"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        ours = [e for e in error.exceptions if isinstance(e, CliError | BaseExceptionGroup)]
        error = (ours or list(error.exceptions))[0]
    return error


def supervise(session: Session, settings: PlatformSettings, wanted: Wanted, show: Show) -> None:
    """Runs a supervisor in this process until it is told to stop."""

    async def run() -> None:
        await Main(session, settings, show).run(wanted)

    asyncio.run(run())


# -- the detached process ------------------------------------------------------------------------------


class _Report:
    """Lines of JSON on the pipe to ``retia up --detach``, and to the log once that is gone."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def send(self, message: dict[str, Any]) -> None:
        if self._descriptor >= 0:
            try:
                os.write(self._descriptor, json.dumps(message).encode() + b"\n")
            except OSError:
                self.close()

    def say(self, text: str) -> None:
        self.send({"progress": text})
        self.log(text)

    def log(self, text: str) -> None:
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", flush=True)  # noqa: T201  the log file

    def close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m retia.cli.up.main")
    parser.add_argument("--home", required=True)
    parser.add_argument("--file", default="")
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--envoy", default="")
    parser.add_argument("--advertise-address", default="")
    parser.add_argument("--capture", default="")
    given = parser.parse_args()
    report = _Report(given.report)

    def up(supervisor: Supervisor, _: Platform, seconds: float) -> None:
        report.send({"result": {"seconds": seconds, "workloads": len(supervisor.instances)}})
        report.close()

    show = Show(report.say, up, lambda _: None, lambda: None)
    try:
        session = Session.of(given.home, os.environ)
        wanted = spec.load(Path(given.file), os.environ) if given.file else Wanted()
        settings = PlatformSettings(given.envoy, given.advertise_address, given.capture)
        supervise(session, settings, wanted, show)
    except CliError as error:
        report.log(str(error))
        report.send({"error": str(error)})
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(_main())
