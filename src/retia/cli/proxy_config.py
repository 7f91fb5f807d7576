"""``retia proxy config``: what an Envoy itself says that it has.

The controller relays the question to the host's agent, which asks the Envoy's admin interface. Nothing here
is what anybody intended: it is what is in force.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retia.cli import output
from retia.cli.errors import CliError
from retia.cli.output import Format, Output
from retia.cli.session import Session

if TYPE_CHECKING:
    from retia.api.client import Client
    from retia.api.schema import ProxyInfo

EXAMPLES = (
    "retia proxy config reviews-v1-0 routes",
    "retia proxy config shop/web-0 clusters -o json",
    "retia proxy config web-0 endpoints",
    "retia proxy config web-0 stats",
)

Row = tuple[Any, ...]


class Part(StrEnum):
    LISTENERS = "listeners"
    ROUTES = "routes"
    CLUSTERS = "clusters"
    ENDPOINTS = "endpoints"
    SECRETS = "secrets"
    STATS = "stats"


def config(
    ctx: typer.Context,
    workload: Annotated[str, typer.Argument(help="A workload or proxy, as 'retia proxies' shows it.")],
    part: Annotated[Part, typer.Argument(help="Which part of its configuration, or its counters.")],
    output_format: Output = Format.TABLE,
) -> None:
    """Show what a proxy has, read from the Envoy itself.

    Under lazy configuration a proxy has only what its application has called. Private keys are never shown.
    """
    session: Session = ctx.obj
    with session.client() as client, output.progress(f"Asking the proxy of {workload}"):
        proxy = find_proxy(client, workload)
        if part is Part.ENDPOINTS:
            raw = _ask(client, proxy.id, "clusters?format=json").get("cluster_statuses", [])
            columns: tuple[str, ...] = ENDPOINT_COLUMNS
            rows = list(endpoint_rows(raw))
        elif part is Part.STATS:
            raw = _ask(client, proxy.id, "stats?format=json&usedonly").get("stats", [])
            columns, rows = STAT_COLUMNS, list(stat_rows(raw))
        else:
            dump = _ask(client, proxy.id, "config_dump").get("configs", [])
            section, columns, read = SECTIONS[part]
            raw = [c for c in dump if c.get("@type", "").rpartition(".")[2] in section]
            rows = [row for c in raw for row in read(c)]
    if not rows and output_format is Format.TABLE:
        output.say(
            f"{proxy.id} has no {part.value} now; a proxy gets them with its application's first calls"
        )
        return
    output.emit(raw, output_format, columns, sorted(rows, key=lambda row: tuple(map(str, row))))


def find_proxy(client: Client, name: str) -> ProxyInfo:
    """The proxy of a workload: by full id, by name in any namespace, or by an unambiguous beginning."""
    proxies = client.list_proxies()
    for wanted in (
        [p for p in proxies if name in (p.id, p.workload)],
        [p for p in proxies if name in (p.id.partition("/")[2], p.workload.partition("/")[2])],
        [p for p in proxies if p.id.startswith(name) or p.id.partition("/")[2].startswith(name)],
    ):
        if len(wanted) == 1:
            return wanted[0]
        if wanted:
            names = ", ".join(p.id for p in wanted[:5])
            raise CliError(f"{name!r} fits several proxies: {names}; say one of them in full")
    known = ", ".join(p.id for p in proxies[:5]) or "there are none"
    raise CliError(f"no proxy of {name!r} is known to the controller; proxies: {known}; see 'retia proxies'")


def _ask(client: Client, proxy: str, path: str) -> dict[str, Any]:
    answer = client.proxy_query(proxy, path)
    if answer.status != 200:
        raise CliError(f"the proxy {proxy} answered {path} with HTTP {answer.status}: {answer.body[:200]}")
    try:
        value = json.loads(answer.body)
    except ValueError as error:
        raise CliError(f"the proxy {proxy} answered {path} with something that is not JSON") from error
    return value if isinstance(value, dict) else {}


STAT_COLUMNS = ("STATISTIC", "VALUE")


def stat_rows(stats: list[dict[str, Any]]) -> Iterator[Row]:
    """Counters and gauges; histograms have no name of their own and are left out."""
    for stat in stats:
        if "name" in stat:
            yield stat["name"], stat.get("value", "")


# -- reading Envoy's dump (envoy.admin.v3) -------------------------------------------------------------


def listener_rows(section: dict[str, Any]) -> Iterator[Row]:
    for entry in section.get("dynamic_listeners", []):
        state = entry.get("active_state") or entry.get("warming_state") or {}
        word = "active" if "active_state" in entry else "warming" if "warming_state" in entry else "error"
        listener = state.get("listener", {})
        chains = len(listener.get("filter_chains", [])) + ("default_filter_chain" in listener)
        yield (
            entry.get("name", ""),
            _address(listener.get("address", {})),
            chains,
            word,
            state.get("version_info", ""),
        )
    for entry in section.get("static_listeners", []):
        listener = entry.get("listener", {})
        chains = len(listener.get("filter_chains", []))
        yield (listener.get("name", ""), _address(listener.get("address", {})), chains, "static", "")


def route_rows(section: dict[str, Any]) -> Iterator[Row]:
    for group in ("static_route_configs", "dynamic_route_configs"):
        for entry in section.get(group, []):
            config = entry.get("route_config", {})
            for host in config.get("virtual_hosts", []):
                domains = ",".join(host.get("domains", []))
                for route in host.get("routes", []) or [{}]:
                    yield (
                        config.get("name", ""),
                        host.get("name", ""),
                        domains,
                        _match(route.get("match", {})),
                        _target(route),
                    )


def cluster_rows(section: dict[str, Any]) -> Iterator[Row]:
    for group in ("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"):
        for entry in section.get(group, []):
            cluster = entry.get("cluster", {})
            tls = (
                "mtls" if "transport_socket" in cluster or "transport_socket_matches" in cluster else "plain"
            )
            kind = cluster.get("type") or cluster.get("cluster_type", {}).get("name", "STATIC")
            yield (
                cluster.get("name", ""),
                kind,
                cluster.get("lb_policy", "ROUND_ROBIN"),
                tls,
                "warming" if group.endswith("warming_clusters") else "active",
                entry.get("version_info", ""),
            )


def secret_rows(section: dict[str, Any]) -> Iterator[Row]:
    for group, word in (
        ("static_secrets", "static"),
        ("dynamic_active_secrets", "active"),
        ("dynamic_warming_secrets", "warming"),
    ):
        for entry in section.get(group, []):
            secret = entry.get("secret", {})
            kind = "bundle" if "validation_context" in secret else "certificate"
            yield (
                entry.get("name", ""),
                kind,
                word,
                entry.get("last_updated", ""),
                entry.get("version_info", ""),
            )


def endpoint_rows(clusters: list[dict[str, Any]]) -> Iterator[Row]:
    for cluster in clusters:
        for host in cluster.get("host_statuses", []):
            health = host.get("health_status", {})
            failing = [k for k, v in sorted(health.items()) if v is True]
            status = "ejected" if "failed_outlier_check" in failing else ",".join(failing)
            yield (
                cluster.get("name", ""),
                _address(host.get("address", {})),
                status or health.get("eds_health_status", "HEALTHY").lower(),
                host.get("weight", 1),
                _stat(host, "rq_total"),
                _stat(host, "rq_error"),
            )


ENDPOINT_COLUMNS = ("CLUSTER", "ADDRESS", "HEALTH", "WEIGHT", "REQUESTS", "ERRORS")

SECTIONS: dict[Part, tuple[tuple[str, ...], tuple[str, ...], Any]] = {
    Part.LISTENERS: (
        ("ListenersConfigDump",),
        ("NAME", "ADDRESS", "CHAINS", "STATE", "VERSION"),
        listener_rows,
    ),
    Part.ROUTES: (
        ("RoutesConfigDump", "ScopedRoutesConfigDump"),
        ("CONFIGURATION", "VIRTUAL HOST", "DOMAINS", "MATCH", "TARGET"),
        route_rows,
    ),
    Part.CLUSTERS: (
        ("ClustersConfigDump",),
        ("NAME", "TYPE", "BALANCER", "WIRE", "STATE", "VERSION"),
        cluster_rows,
    ),
    Part.SECRETS: (("SecretsConfigDump",), ("NAME", "KIND", "STATE", "UPDATED", "VERSION"), secret_rows),
}


def _address(address: dict[str, Any]) -> str:
    if "pipe" in address:
        return str(address["pipe"].get("path", ""))
    if "envoy_internal_address" in address:
        return f"internal:{address['envoy_internal_address'].get('server_listener_name', '')}"
    socket = address.get("socket_address", {})
    return f"{socket.get('address', '')}:{socket.get('port_value', '')}" if socket else ""


def _match(match: dict[str, Any]) -> str:
    path = next(
        (
            f"{word} {match[key] if isinstance(match[key], str) else match[key].get('regex', '')}"
            for key, word in (("prefix", "prefix"), ("path", "path"), ("safe_regex", "regex"))
            if key in match
        ),
        f"prefix {match['path_separated_prefix']}/" if "path_separated_prefix" in match else "any",
    )
    headers = [h.get("name", "") for h in match.get("headers", [])]
    return path + (f" headers {','.join(headers)}" if headers else "")


def _target(route: dict[str, Any]) -> str:
    if "redirect" in route:
        return "redirect"
    if "direct_response" in route:
        return f"answer {route['direct_response'].get('status', '')}"
    action = route.get("route", {})
    if "weighted_clusters" in action:
        parts = action["weighted_clusters"].get("clusters", [])
        return ", ".join(f"{c.get('name', '')} {c.get('weight', 0)}" for c in parts)
    return str(action.get("cluster", action.get("cluster_header", "")))


def _stat(host: dict[str, Any], name: str) -> str:
    return next((str(s.get("value", 0)) for s in host.get("stats", []) if s.get("name") == name), "0")
