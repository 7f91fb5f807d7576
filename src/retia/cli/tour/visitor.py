"""A client inside the mesh, steered from outside it: one line of JSON in, one line of JSON out.

Started as ``retia run -- python visitor.py``. It uses the standard library only and knows nothing of a mesh:
names are looked up in the ordinary way, and proxy variables are heeded as :mod:`urllib.request` heeds them,
so one program serves every way of capture. It ends when its input ends.

Commands: ``http`` (url, method, headers, body, count, parallel, timeout_s), ``resolve`` (name), ``tcp``
(host, port, send, timeout_s), ``environment`` (name).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BODY_LIMIT = 64 * 1024


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are answers to look at, not to follow."""

    def redirect_request(self, *args: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_Stay)


def call(command: dict[str, Any]) -> dict[str, Any]:
    """One HTTP request; a status of 0 means that there was no answer, and ``error`` says why."""
    body = command.get("body")
    request = urllib.request.Request(
        command["url"],
        data=body.encode() if body is not None else None,
        headers=command.get("headers") or {},
        method=command.get("method") or ("GET" if body is None else "POST"),
    )
    started = time.monotonic()
    answer: dict[str, Any] = {"status": 0, "body": "", "headers": {}, "error": ""}
    try:
        with OPENER.open(request, timeout=command.get("timeout_s", 15)) as response:
            _take(answer, response)
    except urllib.error.HTTPError as response:
        _take(answer, response)
    except (OSError, ValueError) as error:
        answer["error"] = str(error) or type(error).__name__
    answer["seconds"] = time.monotonic() - started
    return answer


def _take(answer: dict[str, Any], response: Any) -> None:
    answer["status"] = response.status
    answer["headers"] = {k.lower(): v for k, v in response.headers.items()}
    answer["body"] = response.read(BODY_LIMIT).decode(errors="replace")


def http(command: dict[str, Any]) -> dict[str, Any]:
    count, parallel = command.get("count", 1), command.get("parallel", 1)
    if parallel == 1:
        return {"answers": [call(command) for _ in range(count)]}
    with ThreadPoolExecutor(parallel) as pool:
        return {"answers": list(pool.map(call, [command] * count))}


def resolve(command: dict[str, Any]) -> dict[str, Any]:
    found = socket.getaddrinfo(command["name"], None, socket.AF_INET, socket.SOCK_STREAM)
    return {"addresses": sorted({str(entry[4][0]) for entry in found})}


def tcp(command: dict[str, Any]) -> dict[str, Any]:
    """Reads the greeting, then sends each line and reads one line of answer."""
    host, port = command["host"], command["port"]
    timeout_s = command.get("timeout_s", 10)
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        peer = "{}:{}".format(*connection.getpeername()[:2])
        stream = connection.makefile("rw", newline="\n")
        lines = [stream.readline().strip()]
        for line in command.get("send", []):
            stream.write(line + "\n")
            stream.flush()
            lines.append(stream.readline().strip())
    return {"peer": peer, "lines": lines}


def environment(command: dict[str, Any]) -> dict[str, Any]:
    return {"value": os.environ.get(command["name"], "")}


COMMANDS = {"http": http, "resolve": resolve, "tcp": tcp, "environment": environment}


def main() -> None:
    sys.stdout.write(json.dumps({"ready": os.getpid()}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = COMMANDS[command["op"]](command)
        except (OSError, ValueError) as error:
            answer = {"failed": str(error) or type(error).__name__}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
