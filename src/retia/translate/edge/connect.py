"""``CONNECT`` at a gateway: tunnels, where a rule asks for that method.

A request with this method has no path, so that a route by path never takes it: a rule whose match names the
method gets a route of its own kind. The tunnel ends here, and its bytes go to the rule's destination; which
host the client named doesn't decide where.
"""

from __future__ import annotations

from typing import Any

CONNECT = "CONNECT"


def take_connect(virtual_host: Any) -> None:
    """Let the routes that ask for the method take it."""
    for route in virtual_host.routes:
        if not _asks(route):
            continue
        route.match.connect_matcher.SetInParent()
        if route.HasField("route"):
            upgrade = route.route.upgrade_configs.add()
            upgrade.upgrade_type = CONNECT
            upgrade.connect_config.SetInParent()


def _asks(route: Any) -> bool:
    return any(
        header.name == ":method" and header.string_match.exact == CONNECT and not header.invert_match
        for header in route.match.headers
    )
