"""Servers that know nothing of a mesh: ``python servers.py NAME``."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def web() -> None:
    """HTTP/1.1: an answer, an event stream whose next event waits for ``/next``, a long body."""
    step = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/events":
                self.events()
            elif self.path == "/next":
                step.set()
                self.answer(b"next")
            elif self.path == "/long":
                self.answer(b"x" * 3_000_000)
            else:
                self.answer(b"web " + self.path.encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.answer(str(len(body)).encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def events(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for number in range(3):
                event = f"data: {number}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.flush()
                step.wait(10)
                step.clear()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()


def grpc() -> None:
    """gRPC in all four shapes, with a slow call and a failing one."""
    import grpc as rpc

    def slow(_: bytes, context: Any) -> bytes:
        time.sleep(5)
        return b"late"

    def fails(_: bytes, context: Any) -> bytes:
        context.abort(rpc.StatusCode.FAILED_PRECONDITION, "not today")
        return b""

    def count(request: bytes, _: Any) -> Any:
        return (b"%d" % number for number in range(int(request)))

    def both(requests: Any, _: Any) -> Any:
        yield from (b"got " + each for each in requests)

    handlers = {
        "Unary": rpc.unary_unary_rpc_method_handler(lambda request, _: b"hello " + request),
        "Down": rpc.unary_stream_rpc_method_handler(
            lambda request, _: (b"%d" % n for n in range(int(request)))
        ),
        "Up": rpc.stream_unary_rpc_method_handler(lambda requests, _: b"%d" % sum(map(int, requests))),
        "Both": rpc.stream_stream_rpc_method_handler(both),
        "Slow": rpc.unary_unary_rpc_method_handler(slow),
        "Fails": rpc.unary_unary_rpc_method_handler(fails),
    }
    server = rpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((rpc.method_handlers_generic_handler("test.Echo", handlers),))
    server.add_insecure_port("0.0.0.0:50051")
    server.start()
    server.wait_for_termination()


def websocket() -> None:
    from websockets.asyncio.server import serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(f"echo {message}")

    async def run() -> None:
        async with serve(echo, "0.0.0.0", 8765) as server:
            await server.serve_forever()

    asyncio.run(run())


def smtp() -> None:
    """A protocol in which the server speaks first."""
    from aiosmtpd.smtp import SMTP

    class Keep:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
            return f"250 {len(envelope.content)} bytes from {envelope.mail_from}"

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Keep()), "0.0.0.0", 2525)
        await server.serve_forever()

    asyncio.run(run())


def tls() -> None:
    """TLS of the application's own, with the certificate that the test made."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["PEER_CERTIFICATE"])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"secret " + await reader.readline())
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "0.0.0.0", 8443, ssl=context)
        await server.serve_forever()

    asyncio.run(run())


def redis() -> None:
    program = shutil.which("redis-server") or sys.exit("redis-server is not installed")
    os.execv(
        program, [program, "--port", "6379", "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"]
    )


store = sessions = redis


def h2c() -> None:
    """HTTP/2 without TLS: nginx."""
    folder = Path(os.environ["PEER_FOLDER"])
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or sys.exit(
        "nginx is not installed"
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; user root;
        events {{}}
        http {{ access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
          fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
          server {{ listen 8081 http2; location / {{ return 200 "$server_protocol"; }} }} }}
        """
    )
    os.execv(program, [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)])


if __name__ == "__main__":
    globals()[sys.argv[1]]()
