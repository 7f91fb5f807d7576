"""A client of many protocols that knows nothing of a mesh: makes its calls and prints, as JSON, what came of
each."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import time
import traceback
import urllib.request
from typing import Any


def http() -> Any:
    with urllib.request.urlopen("http://web:8000/a?b=1", timeout=10) as answer:
        return answer.read().decode()


def long_body() -> Any:
    with urllib.request.urlopen("http://web:8000/long", timeout=20) as answer:
        down = len(answer.read())
    with urllib.request.urlopen("http://web:8000/", data=b"y" * 2_000_000, timeout=20) as answer:
        return [down, int(answer.read())]


def events() -> Any:
    """Each event must arrive while the server still waits to send the next."""
    found = []
    with urllib.request.urlopen("http://web:8000/events", timeout=10) as stream:
        for _ in range(3):
            found.append(stream.readline().decode().strip())
            stream.readline()
            urllib.request.urlopen("http://web:8000/next", timeout=10).read()
    return found


def upgrade_to_h2c() -> Any:
    """A client that offers ``Upgrade: h2c`` goes on in HTTP/1.1 where nobody takes it up (RFC 9113, 3.1)."""
    return _curl("--http2", "http://web:8000/up")


def prior_knowledge() -> Any:
    return _curl("--http2-prior-knowledge", "-w", " %{http_version}", "http://h2c:8081/")


def _curl(*arguments: str) -> str:
    program = shutil.which("curl") or sys.exit("curl is not installed")
    done = subprocess.run(
        [program, "-sS", "--max-time", "10", *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout or done.stderr


def grpc() -> Any:
    import grpc as rpc

    with rpc.insecure_channel("grpc:50051") as channel:
        unary, down = channel.unary_unary("/test.Echo/Unary"), channel.unary_stream("/test.Echo/Down")
        up, both = channel.stream_unary("/test.Echo/Up"), channel.stream_stream("/test.Echo/Both")
        turns = []
        stop = object()
        asks: Any = iter([b"one", b"two", stop])
        answers = both(iter(lambda: next(asks), stop), timeout=10)
        for answer in answers:
            turns.append(answer.decode())
        found = {
            "unary": unary(b"world", timeout=10).decode(),
            "down": [each.decode() for each in down(b"3", timeout=10)],
            "up": up(iter([b"1", b"2", b"39"]), timeout=10).decode(),
            "both": turns,
        }
        for name, timeout_s in (("Slow", 0.5), ("Fails", 10)):
            started = time.monotonic()
            try:
                channel.unary_unary(f"/test.Echo/{name}")(b"", timeout=timeout_s)
            except rpc.RpcError as error:
                found[name.lower()] = [error.code().name, time.monotonic() - started < 3]  # type: ignore[attr-defined]
        return found


def websocket() -> Any:
    from websockets.asyncio.client import connect

    async def talk() -> list[Any]:
        async with connect("ws://websocket:8765/chat", open_timeout=10) as connection:
            found = []
            for word in ("one", "two"):
                await connection.send(word)
                found.append(await connection.recv())
            return found

    return asyncio.run(asyncio.wait_for(talk(), 20))


def smtp() -> Any:
    with smtplib.SMTP("smtp", 2525, timeout=10) as server:
        server.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\nhello")
        return str(server.noop()[0])


def tls() -> Any:
    """The certificate that is seen must be the server's own: nobody opens the connection on the way."""
    context = ssl.create_default_context(cafile=os.environ["PEER_CERTIFICATE"])
    plain = socket.create_connection(("tls", 8443), timeout=10)
    with context.wrap_socket(plain, server_hostname="tls") as wrapped:
        wrapped.sendall(b"word\n")
        return wrapped.recv(100).decode()


def redis() -> Any:
    return [_redis("redis", "set", "k", "v"), _redis("redis", "get", "k"), _redis("redis", "ping")]


def redis_by_keys() -> Any:
    """Keys that begin with ``session:`` are kept by another server, without that prefix."""
    written = [_redis("store", "set", "session:1", "x"), _redis("store", "set", "other", "y")]
    return {
        "written": written,
        "through": [_redis("store", "get", "session:1"), _redis("store", "get", "other")],
        "sessions": [_redis("sessions", "get", "1"), _redis("sessions", "get", "other")],
        "several": _redis("store", "mget", "session:1", "other").split(),
    }


def _redis(server: str, *words: str) -> str:
    program = shutil.which("redis-cli") or sys.exit("redis-cli is not installed")
    command = [program, "-h", server, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout or done.stderr).strip()


CALLS = (
    *(http, long_body, events, upgrade_to_h2c, prior_knowledge),
    *(grpc, websocket, smtp, tls, redis, redis_by_keys),
)

if __name__ == "__main__":
    result = {}
    for call in CALLS:
        try:
            result[call.__name__] = call()
        except Exception:  # noqa: BLE001 - a failed call is a result
            result[call.__name__] = traceback.format_exc()
    print(json.dumps(result))
