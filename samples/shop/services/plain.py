"""What the shop's Python services share: a small JSON server and a small JSON client.

Only the standard library, and nothing that knows of a mesh: callees are called by name and port
(``http://ratings:9080/``), and a header is passed on only where the shop itself needs it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

VERSION = os.environ.get("VERSION", "v1")
INSTANCE = os.environ.get("INSTANCE") or f"{VERSION}/{os.getpid()}"


class Request:
    """One request as a handler sees it."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.query = {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        self.headers = headers
        self.body = body


class Reply(Exception):  # noqa: N818  a reply may also be raised from deep within a handler
    """An answer: a status and a value for JSON, or text of some content type."""

    def __init__(self, value: Any, status: int = 200, kind: str = "application/json") -> None:
        super().__init__(status)
        self.status = status
        self.kind = kind
        text = json.dumps(value) + "\n" if kind == "application/json" else str(value)
        self.body = text.encode()
        self.headers: dict[str, str] = {}


Handler = Callable[[Request], Reply]


def serve(name: str, handler: Handler, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; ``PORT`` in the environment overrides the port."""

    class _Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = f"shop-{name}"
        wbufsize = -1  # head and body in one packet
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {k.lower(): v for k, v in self.headers.items()}
            try:
                reply = _common(name, Request(self.command, self.path, headers, body), handler)
            except Reply as early:
                reply = early
            self.send_response(reply.status)
            self.send_header("content-type", reply.kind)
            self.send_header("content-length", str(len(reply.body)))
            for key, value in reply.headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815  names that the library calls

        def log_message(self, *args: Any) -> None:
            return

    class _Listener(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    actual = int(os.environ.get("PORT") or port)
    server = _Listener((os.environ.get("HOST", "0.0.0.0"), actual), _Server)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"{name} {VERSION} listens on port {actual}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


def _common(name: str, request: Request, handler: Handler) -> Reply:
    """The paths that every service of the shop has."""
    if request.path == "/health":
        return Reply({"service": name, "healthy": True})
    if request.path == "/headers":
        return Reply({"service": name, "version": VERSION, "path": request.path, "headers": request.headers})
    return handler(request)


def fetch(url: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> Any:
    """The JSON at ``url``; raises :class:`Reply` (502 or the callee's own status) when there is none."""
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise Reply({"error": f"{url}: status {error.code}"}, status=error.code) from error
    except (OSError, ValueError) as error:
        raise Reply({"error": f"{url}: {error}"}, status=502) from error
