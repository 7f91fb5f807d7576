"""An agent under test: keeper and worker as real processes in a home of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

import retia
from retia.api.local import (
    AgentInfo,
    Info,
    Launch,
    Launched,
    LocalClient,
    LocalError,
    Proxies,
    ProxyInfo,
    WorkloadInfo,
    Workloads,
)
from retia.node.addresses import MAX_INDEX
from retia.node.meshindex import IndexTaken, MeshLock


class AgentUnderTest:
    """Use as an asynchronous context manager."""

    def __init__(self, controller: str, token: str, *options: str, index: int | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="retia-"))
        self._arguments = ["--home", str(self.home), "--controller", controller, "--join", token]
        index = free_index() if index is None else index
        self._arguments += ["--host", "h1", "--index", str(index), "--log-format", "json", *options]
        self.process: subprocess.Popen[bytes] | None = None
        self._log = (self.home / "agent.log").open("ab")

    async def __aenter__(self) -> AgentUnderTest:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._log.close()
        shutil.rmtree(self.home, ignore_errors=True)

    async def start(self) -> None:
        argv = [sys.executable, "-m", "retia.agent.main", *self._arguments]
        env = {**os.environ, "PYTHONPATH": str(Path(retia.__file__).parent.parent)}
        self.process = subprocess.Popen(  # noqa: ASYNC220 (a fork, no wait)
            argv, stderr=self._log, stdout=self._log, start_new_session=True, env=env
        )
        await self.until_answering()

    async def until_answering(self, timeout_s: float = 15.0) -> None:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    await self.call(Info(), AgentInfo)
                    return
                except LocalError:
                    if self.process is not None and self.process.poll() is not None:
                        raise AssertionError(f"the agent ended: {self.log()}") from None
                    await asyncio.sleep(0.05)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            return await asyncio.to_thread(process.wait, 30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    def log(self) -> str:
        return (self.home / "agent.log").read_text()

    async def call(self, request: Any, reply: Any, timeout_s: float = 20.0) -> Any:
        def ask() -> Any:
            with LocalClient(self.home / "run" / "agent.sock", timeout_s) as client:
                return client.call(request, reply)

        return await asyncio.to_thread(ask)

    async def launch(self, pid: int, **fields: Any) -> Launched:
        result = await self.call(Launch(pid=pid, **fields), Launched)
        assert isinstance(result, Launched)
        return result

    async def info(self) -> AgentInfo:
        return await self.call(Info(), AgentInfo)  # type: ignore[no-any-return]

    async def workloads(self) -> tuple[WorkloadInfo, ...]:
        from retia.api.local import WorkloadList

        return (await self.call(Workloads(), WorkloadList)).workloads  # type: ignore[no-any-return]

    async def proxies(self) -> tuple[ProxyInfo, ...]:
        from retia.api.local import ProxyList

        return (await self.call(Proxies(), ProxyList)).proxies  # type: ignore[no-any-return]

    async def worker_pid(self) -> int:
        return (await self.info()).pid

    async def kill_worker(self) -> None:
        """``kill -9``, and wait for the next one to answer."""
        old = await self.worker_pid()
        os.kill(old, signal.SIGKILL)
        async with asyncio.timeout(15.0):
            while True:
                try:
                    if await self.worker_pid() != old:
                        return
                except LocalError:
                    pass
                await asyncio.sleep(0.05)


PROGRAM = """
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (os.environ.get("WHO", "") + " " + self.path).encode()
        code = 500 if self.path == "/bad" or os.path.exists(os.environ.get("SICK", "/nonexistent")) else 200
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer((os.environ.get("BIND", "127.0.0.1"), int(sys.argv[1])), H).serve_forever()
"""
WAIT = (
    "import os,sys; sys.stdin.readline();"
    " os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], *sys.argv[2:]])"
)


class Program:
    """A program that starts when told to, so that it can be taken into the mesh first."""

    def __init__(self, *arguments: str, source: str = PROGRAM, **env: str) -> None:
        argv = [sys.executable, "-c", WAIT, source, *arguments]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, env={**os.environ, **env})

    @property
    def pid(self) -> int:
        return self.process.pid

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.close()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def free_index() -> int:
    """A mesh index that nobody has, from those that a mesh takes last."""
    for index in range(MAX_INDEX - 2, -1, -1):  # the last two are those of tests/integration/node
        with contextlib.suppress(IndexTaken):
            MeshLock.take(index).socket.close()
            return index
    raise IndexTaken(None)


async def get(proxy: str, url: str, timeout_s: float = 8.0) -> httpx.Response:
    async with httpx.AsyncClient(proxy=proxy or None, timeout=timeout_s, trust_env=False) as client:
        return await client.get(url)
