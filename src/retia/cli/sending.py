"""Really sending the request of ``retia explain --send``, and comparing the outcome with what was predicted.

Under eBPF capture a process of this command enters the workload's cgroup, where its connections are captured
as the workload's own; under explicit capture it uses the workload's forward proxy. Which instance answered
is read from the proxy's own counters of each endpoint, before and after: the response need not say it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from retia.cli.errors import CliError

if TYPE_CHECKING:
    from retia.api.client import Client
    from retia.api.schema import ExplainArrival, ExplainRequest, ExplainResult
    from retia.cli.session import Session

TIMEOUT_S = 20.0
_SHOWN = ("retia-code", "proxy-status", "location", "content-type")
Counts = dict[tuple[str, str], int]
"""Calls so far by cluster and endpoint."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``status`` 0: a connection without HTTP that stood; ``error``: nothing did."""

    status: int = 0
    error: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer beside the prediction."""

    answer: Answer
    reached: tuple[tuple[str, str], ...]
    """Cluster and endpoint of each try."""
    problems: tuple[str, ...]
    workloads: dict[str, str]

    @property
    def agrees(self) -> bool:
        return not self.problems

    def lines(self) -> list[str]:
        answer = self.answer
        came = answer.error or (f"answer {answer.status}" if answer.status else "connected")
        lines = [f"sent: {came}"]
        lines += [f"  {name}: {value}" for name, value in answer.headers.items() if name in _SHOWN]
        for cluster, address in self.reached:
            who = self.workloads.get(address, "")
            lines.append(f"  went to {who or address} by {cluster}")
        lines += [f"not as predicted: {problem}" for problem in self.problems]
        return lines if self.problems else [*lines, "prediction and outcome agree"]

    def plain(self) -> dict[str, Any]:
        return {
            "agrees": self.agrees,
            "status": self.answer.status,
            "error": self.answer.error,
            "headers": self.answer.headers,
            "reached": [
                {"cluster": cluster, "endpoint": address, "workload": self.workloads.get(address, "")}
                for cluster, address in self.reached
            ],
            "problems": list(self.problems),
        }


def send(session: Session, client: Client, request: ExplainRequest, result: ExplainResult) -> Outcome:
    """Send the request and compare. Raises :class:`CliError` where it can't be sent from that place."""
    if not result.hops:
        raise CliError(f"it can't be sent as predicted: {'; '.join(result.notes) or 'it enters no proxy'}")
    before = _counts(client, result.proxy)
    answer = _ask(session, request, result)
    after = _counts(client, result.proxy)
    reached = tuple(
        where for where, count in sorted(after.items()) for _ in range(min(count - before.get(where, 0), 20))
    )
    return Outcome(answer, reached, tuple(compare(result, answer, reached)), dict(result.endpoints))


def compare(result: ExplainResult, answer: Answer, reached: tuple[tuple[str, str], ...]) -> list[str]:
    """What is not as predicted. Other traffic of the workload may add to what was reached, so it is enough
    that a predicted endpoint is among it."""
    stopped = _stopped(result, reached)
    if stopped:
        return _not_passed_on(stopped, answer)
    problems: list[str] = []
    own = "retia-code" in answer.headers
    if result.clusters and not (own and answer.status in result.status):
        if answer.error:
            problems.append(f"a response from {', '.join(result.clusters)} was expected, but {answer.error}")
        elif reached and not any(cluster in result.clusters for cluster, _ in reached):
            problems.append(f"it went to {reached[0][0]} instead of {', '.join(result.clusters)}")
        elif own:
            problems.append(f"the proxy answered {answer.status} by itself ({answer.headers['retia-code']})")
        elif not reached and result.http:
            problems.append(f"no endpoint of {', '.join(result.clusters)} was called")
    elif not result.clusters:
        if result.status and answer.status not in result.status:
            expected = " or ".join(map(str, result.status))
            problems.append(f"status {expected} was expected, not {answer.error or answer.status}")
        elif not result.status and not result.refused and result.hops and not result.certain:
            problems.append("nothing was predicted: a part of the path could not be interpreted")
        elif not result.status and not answer.error:
            problems.append(f"the connection was expected to be refused, but {_came(answer)}")
    return problems


def _stopped(result: ExplainResult, reached: tuple[tuple[str, str], ...]) -> list[ExplainArrival]:
    """The arrivals that were to end the call: those of the clusters that were called, or of all that could
    be; empty where one of them passes it on."""
    clusters = {cluster for cluster, _ in reached if cluster in result.clusters} or set(result.clusters)
    if not clusters <= set(result.arrivals):
        return []
    return [result.arrivals[cluster] for cluster in sorted(clusters)]


def _not_passed_on(arrivals: list[ExplainArrival], answer: Answer) -> list[str]:
    """What is not as predicted where a callee's proxy was to end the call. Over HTTP, the caller's own proxy
    says by 503 that a connection was closed."""
    statuses = {status for each in arrivals for status in each.status}
    refused = any(each.refused for each in arrivals)
    closed = answer.error or (answer.status == 503 and "retia-code" in answer.headers)
    if answer.status in statuses or (refused and closed):
        return []
    where = ", ".join(each.proxy for each in arrivals)
    if statuses:
        expected = " or ".join(map(str, sorted(statuses)))
        return [f"status {expected} of {where} was expected, but {_came(answer)}"]
    return [f"{where} was expected to refuse the connection, but {_came(answer)}"]


def _came(answer: Answer) -> str:
    if answer.error:
        return answer.error
    return f"the answer is {answer.status}" if answer.status else "it was accepted"


# -- sending -----------------------------------------------------------------------------------------------


def _ask(session: Session, request: ExplainRequest, result: ExplainResult) -> Answer:
    if result.send_as == "captured":
        return _inside(session, result.workload, lambda: _direct(request, result))
    if result.send_as == "proxy":
        return _by_proxy(request, result)
    return _direct(request, result)


def _inside(session: Session, workload: str, action: Callable[[], Answer]) -> Answer:
    """``action`` in a process of its own, inside the workload's place; its answer comes back by a pipe."""
    from retia.api.local import Done, Enter

    reading, writing = os.pipe()
    go, gone = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.close(gone)
        os._exit(_child(go, writing, action))
    os.close(writing)
    os.close(go)
    try:
        with session.agent() as agent:
            agent.call(Enter(workload=workload, pid=pid), Done)
        os.write(gone, b"x")
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
    finally:
        os.close(gone)
        os.waitpid(pid, 0)
    if not data:
        raise CliError(f"the request from {workload} could not be sent: its process ended")
    return Answer(**json.loads(data))


def _child(go: int, writing: int, action: Callable[[], Answer]) -> int:
    """Waits until it has been taken in; a closed pipe means that it won't be."""
    if not os.read(go, 1):
        return 1
    try:
        answer = action()
    except Exception as error:  # noqa: BLE001 - said to the parent, whatever it is
        answer = Answer(error=f"{type(error).__name__}: {error}")
    content = {"status": answer.status, "error": answer.error, "headers": answer.headers}
    os.write(writing, json.dumps(content).encode())
    return 0


def _direct(request: ExplainRequest, result: ExplainResult) -> Answer:
    """To the address that the workload would have dialled."""
    parts = urlsplit(request.url if "://" in request.url else f"http://{request.url}")
    try:
        if parts.scheme in ("http", "https", "grpc"):
            return _http(request, result.address, result.port, parts)
        return _connect(result.address, result.port)
    except (OSError, http.client.HTTPException) as error:
        return Answer(error=f"{type(error).__name__}: {error}")


def _http(request: ExplainRequest, address: str, port: int, parts: Any) -> Answer:
    connection: http.client.HTTPConnection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_S)
    if parts.scheme == "https":
        connection = _Secured(address, port, parts.hostname or address)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _exchange(connection, request, path, parts.netloc)


def _by_proxy(request: ExplainRequest, result: ExplainResult) -> Answer:
    """Through the forward proxy: the whole URL as the target, or ``CONNECT`` for what is not HTTP."""
    parts = urlsplit(request.url if "://" in request.url else f"http://{request.url}")
    connection = http.client.HTTPConnection(result.address, result.port, timeout=TIMEOUT_S)
    try:
        if parts.scheme in ("http", "grpc"):
            target = parts._replace(scheme="http", path=parts.path or "/").geturl()
            return _exchange(connection, request, target, parts.netloc)
        connection.request("CONNECT", f"{parts.hostname}:{parts.port or 443}")
        answer = connection.getresponse()
        return Answer(0 if answer.status == 200 else answer.status, headers=_headers(answer))
    except (OSError, http.client.HTTPException) as error:
        return Answer(error=f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def _exchange(
    connection: http.client.HTTPConnection, request: ExplainRequest, target: str, host: str
) -> Answer:
    given = {name.lower(): value for name, value in request.headers}
    try:
        connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", given.pop("host", host))
        for name, value in request.headers:
            if name.lower() != "host":
                connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read(1 << 20)
        return Answer(answer.status, headers=_headers(answer))
    finally:
        connection.close()


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.getheaders()}


def _connect(address: str, port: int) -> Answer:
    """A connection that is accepted by its proxy may still be closed at once: that is looked for."""
    with socket.create_connection((address, port), timeout=TIMEOUT_S) as connection:
        connection.settimeout(0.5)
        try:
            if not connection.recv(1):
                return Answer(error="the connection was closed at once")
        except TimeoutError:
            pass
    return Answer()


class _Secured(http.client.HTTPConnection):
    """HTTPS by name to a given address; the certificate is the mesh's business or the server's, not ours."""

    def __init__(self, address: str, port: int, name: str) -> None:
        super().__init__(address, port, timeout=TIMEOUT_S)
        self._name = name

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname=self._name)


# -- who was called ----------------------------------------------------------------------------------------


def _counts(client: Client, proxy: str) -> Counts:
    """How often each endpoint was called: requests, or connections where only bytes are passed."""
    page = json.loads(client.proxy_query(proxy, "/clusters?format=json").body)
    found: Counts = {}
    for cluster in page.get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()):
            stats = {s["name"]: int(s.get("value", 0)) for s in host.get("stats", ())}
            where = host.get("address", {}).get("socket_address", {})
            address = f"{where.get('address', '')}:{where.get('port_value', '')}"
            count = stats.get("rq_total", 0) or stats.get("cx_total", 0)
            found[cluster["name"], address] = count
    return found
