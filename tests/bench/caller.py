"""Requests from inside a workload, each timed: lines ``HOST PORT`` come in, lines of JSON go out.

Only the standard library, started as ``python -IS``, so that the mesh sees an ordinary program.
"""

import json
import socket
import sys
import time


def call(host: str, port: int) -> dict[str, float]:
    begin = time.perf_counter()
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
        named = time.perf_counter()
        with socket.socket() as connection:
            connection.settimeout(10)
            connection.connect(found[0][4])
            connected = time.perf_counter()
            request = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            answer = b""
            while block := connection.recv(65536):
                answer += block
    except OSError:
        return {"status": 0, "total_ms": (time.perf_counter() - begin) * 1000}
    end = time.perf_counter()
    return {
        "status": int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0,
        "total_ms": (end - begin) * 1000,
        "name_ms": (named - begin) * 1000,
        "connect_ms": (connected - named) * 1000,
    }


for line in sys.stdin:
    name, number = line.split()
    print(json.dumps(call(name, int(number))), flush=True)
