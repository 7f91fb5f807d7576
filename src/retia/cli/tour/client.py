"""The visitor's other end: starts it in the mesh, and turns its lines into answers."""

from __future__ import annotations

import json
import select
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retia.cli.tour.errors import TourError
from retia.cli.tour.processes import end, retia, tail

PROGRAM = Path(__file__).with_name("visitor.py")


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. ``status`` 0: there was none, and ``error`` says why."""

    status: int
    body: str
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def json(self) -> dict[str, Any]:
        """The body as an object; empty where it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def __str__(self) -> str:
        return f"status {self.status}" if self.status else f"no answer ({self.error})"


class Visitor:
    """A client in the mesh with the identity ``visitor``. Use it as a context manager."""

    def __init__(
        self,
        environment: dict[str, str],
        log: Path,
        python: str,
        capture: str = "auto",
        account: str = "visitor",
        upstreams: tuple[str, ...] = (),
    ) -> None:
        options = ["--service-account", account, "--capture", capture]
        for upstream in upstreams:
            options += ["--upstream", upstream]
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                retia("run", *options, "--", python, str(PROGRAM)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                bufsize=1,
                start_new_session=True,
            )
        self.pid = self._process.pid
        try:
            self._receive(60)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; it leaves the mesh by ending."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        end(self._process, grace_s=3)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def http(
        self,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: str | None = None,
        method: str = "",
        timeout_s: float = 15,
    ) -> Answer:
        """One request."""
        return self.many(url, 1, headers=headers, body=body, method=method, timeout_s=timeout_s)[0]

    def many(
        self,
        url: str,
        count: int,
        *,
        headers: dict[str, str] | None = None,
        body: str | None = None,
        method: str = "",
        parallel: int = 1,
        timeout_s: float = 15,
    ) -> list[Answer]:
        """``count`` requests, each on its own connection, one after the other or ``parallel`` at once."""
        answer = self._ask(
            {
                "op": "http",
                "url": url,
                "headers": headers or {},
                "body": body,
                "method": method,
                "count": count,
                "parallel": parallel,
                "timeout_s": timeout_s,
            },
            wait_s=timeout_s * count + 10,
        )
        return [Answer(**one) for one in answer["answers"]]

    def resolve(self, name: str) -> list[str]:
        """The IPv4 addresses of a name; empty: it has none."""
        answer = self._ask({"op": "resolve", "name": name}, wait_s=30)
        return [str(a) for a in answer.get("addresses", [])]

    def tcp(self, host: str, port: int, *send: str) -> list[str]:
        """The greeting and one line of answer for each line sent; raises OSError where that fails."""
        answer = self._ask({"op": "tcp", "host": host, "port": port, "send": list(send)}, wait_s=30)
        if "failed" in answer:
            raise OSError(answer["failed"])
        return [str(line) for line in answer["lines"]]

    def environment(self, name: str) -> str:
        """A variable of the visitor's environment; empty where it is not set."""
        return str(self._ask({"op": "environment", "name": name}, wait_s=10)["value"])

    def _ask(self, command: dict[str, Any], wait_s: float) -> dict[str, Any]:
        if self._process.stdin is None:
            raise TourError("the visitor has no input")
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise TourError(f"the visitor is gone:\n{tail(self._log)}") from error
        return self._receive(wait_s)

    def _receive(self, wait_s: float) -> dict[str, Any]:
        stream = self._process.stdout
        if stream is None:
            raise TourError("the visitor has no output")
        # One line per command, and nothing is asked before the last line came: the buffer is empty here.
        ready, _, _ = select.select([stream], [], [], wait_s)
        line = stream.readline() if ready else ""
        if not line:
            why = "ended" if ready else f"did not answer within {wait_s:.0f} s"
            raise TourError(f"the visitor {why}:\n{tail(self._log)}")
        value: dict[str, Any] = json.loads(line)
        return value
