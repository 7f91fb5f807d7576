"""Fetches what the categories judge; nothing running is an ordinary case."""

from __future__ import annotations

import time

from retia.api.client import ClientError
from retia.api.local import AgentInfo, Info, LocalError
from retia.api.schema import HostInfo, ProxyInfo, StatusInfo
from retia.cli.checks import Scene
from retia.cli.session import Session

ANSWER_S = 5.0
"""How long the controller and the agent may take for one answer. A healthy one needs milliseconds;
one that is stopped or overloaded is what a check is to find, soon."""


def fetch(session: Session) -> Scene:
    """The scene now; bounded by the clients' own time-outs."""
    status: StatusInfo | None = None
    hosts: list[HostInfo] = []
    proxies: list[ProxyInfo] = []
    agent: AgentInfo | None = None
    controller_error = agent_error = ""
    try:
        with session.client(ANSWER_S) as client:
            status = client.status()
            hosts = client.list_hosts()
            proxies = client.list_proxies()
    except ClientError as error:
        controller_error = str(error) if session.api_socket.exists() else ""
    try:
        with session.agent(ANSWER_S) as connection:
            agent = connection.call(Info(), AgentInfo)
    except LocalError as error:
        agent_error = str(error) if session.agent_socket.exists() else ""
    return Scene(
        session=session,
        now=time.time(),
        status=status,
        controller_error=controller_error,
        hosts=tuple(hosts),
        proxies=tuple(proxies),
        agent=agent,
        agent_error=agent_error,
    )
