"""The controller as a process: ``python -m retia.control.main``, which ``retia controller`` becomes.

Start: state is opened and checked, ports are taken, what the store remembers becomes the first snapshot, and
only then is anybody served. Stop (SIGTERM, SIGINT): no new connections, the API first, then the sessions,
then the store; agents and Envoys notice nothing but a closed connection. Any failure at start is one sentence
on stderr and exit status 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import secrets
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvicorn

from retia import __version__
from retia.aio.clock import SystemClock
from retia.aio.grpc import Server
from retia.aio.health import HealthServer
from retia.aio.tasks import every, stop
from retia.api.server import create_app
from retia.authority.authority import Authority
from retia.authority.errors import AuthorityError
from retia.authority.tls import server_context, use_pair
from retia.authority.tokens import Tokens
from retia.control import direct, mesh_settings, sockets
from retia.control.backend import ControlBackend, counters
from retia.control.configuration import Configuration
from retia.control.core import Core
from retia.control.hub import Hub
from retia.control.identity_service import IdentityService
from retia.control.learned import SPACE as LEARNED_SPACE
from retia.control.learned import Learned
from retia.control.logs import configure_logs
from retia.control.name_table import NameTable
from retia.control.patches import SPACE as PATCHES_SPACE
from retia.control.patches import Patches
from retia.control.pipeline import Pipeline
from retia.control.quarantine import Quarantine
from retia.control.registry import Registry
from retia.control.remembered import Remembered
from retia.control.rollouts import LOOK_EVERY_S, Rollouts
from retia.control.rollouts import SPACE as ROLLOUTS_SPACE
from retia.control.session import Gateway
from retia.control.settings import Settings, SettingsError, parse
from retia.control.standby import ChangeLog
from retia.identity.rotation import is_due
from retia.identity.spiffe import parse_trust_domain
from retia.model.resource import Name
from retia.model.snapshot import FactKey
from retia.sources.directory import DirectorySource
from retia.sources.errors import StoreError
from retia.sources.space import Space
from retia.sources.sqlite import SqliteStore
from retia.sources.vips import Vips
from retia.translate.translate import build, listed
from retia.xds.server import XdsService

TOKENS_SPACE = "tokens"
SAVE_LEARNED_S = 5.0
RENEW_CHECK_S = 1.0
MAINTAIN_S = 3600.0

_log = structlog.get_logger("retia.control")


class StartError(Exception):
    """The controller can't start; one sentence."""


class Controller:
    """All parts of one controller. :meth:`start`, then :meth:`run` until cancelled, then :meth:`close`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.ready = False
        self._started = self.clock.now()
        self._background: list[asyncio.Task[None]] = []

    # -- start ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve. Raises :class:`StartError`; then nothing stays open."""
        async with contextlib.AsyncExitStack() as opened:
            try:
                self._open_state(opened)
                await self._build()
                await self._listen(opened)
            except (StoreError, AuthorityError, sockets.PortError, OSError, ssl.SSLError) as error:
                raise StartError(_sentence(error)) from error
            self._closing = opened.pop_all()
        self.ready = True
        _log.info(
            "the controller serves",
            version=__version__,
            address=f"{self.settings.listen}:{self.settings.xds_port}",
            services=len(self.core.pipeline.facts.services),
            workloads=len(self.core.pipeline.facts.workloads),
            seconds=round(self.clock.now() - self._started, 3),
        )

    def _open_state(self, opened: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        for folder in (settings.home, settings.run, settings.state):
            _make_private(folder)
        self.store = SqliteStore(settings.state / "store.sqlite")
        opened.callback(self.store.close)
        for note in self.store.notes:
            _log.warning("the store", note=note)
        self.authority = Authority.open(
            settings.state / "authority",
            parse_trust_domain(settings.trust_domain),
            self._now(),
            lifetime=settings.lifetime,
            own_directory=settings.authority,
        )
        for note in self.authority.notes:
            _log.warning("the authority", note=note)

    async def _build(self) -> None:
        settings, store = self.settings, self.store
        mesh = mesh_settings.load(Space(store, mesh_settings.SPACE), settings.trust_domain)
        hub = Hub()
        vips = Vips(store)
        pipeline = Pipeline(mesh, vips, hub, build, listed, settings.debounce_s)
        pipeline.facts.put_vips(vips.addresses())
        self.remembered = Remembered(store)
        registry = Registry(
            pipeline.facts,
            self.remembered,
            self.clock,
            settings.lease_s,
            settings.trust_domain,
            pipeline.touch,
        )
        self.core = Core(
            settings=settings,
            clock=self.clock,
            hub=hub,
            pipeline=pipeline,
            registry=registry,
            names=NameTable(secrets.token_hex(8)),
            changes=ChangeLog(),
            learned=Learned(Space(store, LEARNED_SPACE), self.clock),
            quarantine=Quarantine(pipeline.facts, pipeline.engine, pipeline.touch),
            trust_domain=settings.trust_domain,
            bundle_pem=self.authority.bundle_pem,
        )
        pipeline.on_change.append(functools.partial(on_change, self.core))
        directory = DirectorySource(settings.config) if settings.config else None
        self.configuration = Configuration(store, directory, pipeline.facts, pipeline.touch)
        self.tokens = Tokens(
            Space(store, TOKENS_SPACE), self.authority.fingerprint, parse_trust_domain(settings.trust_domain)
        )
        registry.recall()
        await self.configuration.load()
        self.core.patches = Patches(self.core, Space(store, PATCHES_SPACE))
        self.core.patches.recall(pipeline.facts.objects.values())
        self.rollouts = Rollouts(self.core, Space(store, ROLLOUTS_SPACE))
        self.rollouts.recall()
        await pipeline.cycle()
        pipeline.on_change.append(lambda changed, _: self.core.patches.on_change(changed))
        # Services that had no virtual address have one now.
        await pipeline.cycle()

    async def _listen(self, opened: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        self._pair = self.authority.controller_pair(self._now())
        self._tls = server_context(
            self._pair.chain_pem,
            self._pair.key_pem,
            self.authority.bundle_pem,
            parse_trust_domain(settings.trust_domain),
        )
        xds_socket = sockets.tcp(settings.listen, settings.xds_port, "the port for agents")
        opened.callback(xds_socket.close)
        health_socket = sockets.tcp("127.0.0.1", settings.health_port, "the port for metrics")
        opened.callback(health_socket.close)
        api_socket = sockets.unix(settings.api_socket, "the API's socket")
        opened.callback(functools.partial(settings.api_socket.unlink, missing_ok=True))
        opened.callback(api_socket.close)

        identity = IdentityService(self.authority, self.tokens, self.core.registry, self.clock)
        xds = XdsService(lambda peer, first: direct.accept(self.core, peer, first))
        server = Server(Gateway(self.core).method, xds.method, *identity.methods)
        await server.listen(xds_socket, self._tls)
        opened.push_async_callback(server.stop)
        health = HealthServer(lambda: self.ready, lambda: counters(self.core), "retia_controller")
        await health.listen(health_socket)
        opened.push_async_callback(health.stop)
        backend = ControlBackend(
            self.core,
            self.store,
            self.configuration,
            self.authority,
            self.tokens,
            self.rollouts,
            self._started,
        )
        config = uvicorn.Config(
            create_app(backend),
            log_config=None,
            lifespan="off",
            access_log=False,
            timeout_graceful_shutdown=2,
        )
        self._api = _ApiServer(config)
        self._api_task = asyncio.create_task(self._api.serve([api_socket]), name="api")
        opened.push_async_callback(self._stop_api)

    async def _stop_api(self) -> None:
        self._api.should_exit = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(self._api_task, return_exceptions=True)

    # -- run -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A background task that fails takes the process down: it would only seem to run."""
        sweep_s = max(self.settings.lease_s / 15, 0.1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.core.pipeline.run(), name="pipeline")
            tasks.create_task(self.configuration.run(), name="configuration")
            tasks.create_task(self.core.patches.run(), name="patches")
            tasks.create_task(self.remembered.run(), name="remembered")
            tasks.create_task(self._every(sweep_s, self._sweep), name="leases")
            tasks.create_task(self._every(LOOK_EVERY_S, self.rollouts.look), name="rollouts")
            tasks.create_task(self._every(SAVE_LEARNED_S, self._save_learned), name="learned")
            tasks.create_task(self._every(RENEW_CHECK_S, self._renew), name="certificate")
            tasks.create_task(self._every(MAINTAIN_S, self._maintain), name="authority")

    async def close(self) -> None:
        """Stop serving and give everything back."""
        self.ready = False
        await self._closing.aclose()

    def _every(self, period_s: float, action: Callable[[], Awaitable[None]]) -> Coroutine[None, None, None]:
        def failed(error: Exception) -> None:
            _log.error(
                "a periodic task failed", task=getattr(action, "__name__", ""), reason=_sentence(error)
            )

        return every(period_s, action, failed)

    async def _sweep(self) -> None:
        held = self.core.registry.leases.held_until
        for host in self.core.registry.sweep():
            if host in self.core.sessions:
                self.core.sessions[host].replace()
        if self.core.registry.leases.held_until != held:
            _log.error(
                "no endpoint is withdrawn for one lease",
                reason=self.core.registry.leases.reason,
                seconds=self.settings.lease_s,
            )

    async def _save_learned(self) -> None:
        await asyncio.to_thread(self.core.learned.save)

    async def _renew(self) -> None:
        if is_due(self._pair.life, 0.0, self._now()):
            self._pair = self.authority.controller_pair(self._now())
            use_pair(self._tls, self._pair.chain_pem, self._pair.key_pem)

    async def _maintain(self) -> None:
        if self.authority.maintain(self._now()):
            _log.info("the intermediate certificate was renewed")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)


def on_change(core: Core, changed: frozenset[FactKey], affected: frozenset[Name]) -> None:
    """The engine has taken a change: the tables that sessions read follow."""
    hosts = [key[1] for key in changed if key[0] == "service" and len(key) == 2]
    core.changes.note(affected, hosts)  # type: ignore[arg-type]
    if core.names.take(core.pipeline.engine.snapshot, changed):
        for session in core.sessions.values():
            session.ring()


class _ApiServer(uvicorn.Server):
    """Leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"can't make {folder}: {error.strerror}") from error


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return str(error) or type(error).__name__


async def serve(settings: Settings) -> None:
    """Run a controller until SIGTERM or SIGINT. Raises :class:`StartError`."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    controller = Controller(settings)
    await controller.start()
    _spare_the_collector()
    running = asyncio.create_task(controller.run(), name="controller")
    waiting = asyncio.create_task(ended.wait(), name="signal")
    try:
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        _log.info("the controller stops")
    finally:
        await stop(running, waiting)
        await controller.close()


def _spare_the_collector() -> None:
    """What the start has built stays: without this, each full collection would walk over all of a large mesh
    (a fifth of a second with 50,000 endpoints) while everybody waits."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # Threads parse and analyse beside the loop, which shouldn't wait 5 ms (the default) for its turn.
    sys.setswitchinterval(0.001)


def main(settings: Settings) -> None:
    """The entry; returns when the controller has stopped. Raises ``SystemExit`` with status 1 if it can't
    start."""
    os.umask(0o077)
    configure_logs(settings.log_level, settings.log_json)
    try:
        asyncio.run(serve(settings))
    except StartError as error:
        raise SystemExit(_fail(str(error))) from error


def _fail(sentence: str) -> int:
    sys.stderr.write(f"retia controller: {sentence}\n")
    return 1


def run(arguments: Sequence[str]) -> None:
    """From command-line arguments."""
    try:
        settings = parse(arguments)
    except SettingsError as error:
        raise SystemExit(_fail(str(error))) from error
    main(settings)


if __name__ == "__main__":
    run(sys.argv[1:])
