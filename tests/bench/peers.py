"""The pairs of proxies to measure against: plain request in, mutual TLS between, plain request out.

Each pair: route by Host, mutual TLS 1.3 with ECDSA P-256 certificates, one rule on the peer's identity at the
second proxy. ``envoy-lean`` and ``envoy-istio-like`` are the two chains that figures are quoted against; the
latter is a stand-in with Istio's usual filters (peer metadata by Lua, filter state, gRPC statistics, CORS,
fault, local rate limit, a 15-tag statistics log, a 24-field JSON log), not Istio itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.machine import envoy_binary, tool

Json = dict[str, Any]
TYPE = "type.googleapis.com/"
HOST = "backend.default"


@dataclass(frozen=True)
class Ports:
    """``a`` takes the load, ``b`` the TLS of the pair, ``backend`` answers."""

    a: int
    b: int
    backend: int


@dataclass(frozen=True)
class Peer:
    """One kind of pair. ``commands`` gives the two proxies' command lines, or ``None`` where the program
    isn't installed."""

    name: str
    commands: Callable[[Path, Ports], list[list[str]] | None]


def _any(type_name: str, **fields: Any) -> Json:
    return {"@type": TYPE + type_name, **fields}


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _named(name: str, type_name: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": _any(type_name, **fields)}


_FILTER = "envoy.extensions.filters.http."
_ROUTER = _named("envoy.filters.http.router", _FILTER + "router.v3.Router")


def _tls(folder: Path, me: str, peer: str | None) -> Json:
    files = {
        "certificate_chain": {"filename": str(folder / f"{me}.pem")},
        "private_key": {"filename": str(folder / f"{me}.key")},
    }
    validation: Json = {"trusted_ca": {"filename": str(folder / "ca.pem")}}
    if peer:
        uri = f"spiffe://cluster.local/ns/default/sa/{peer}"
        validation["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": uri}}]
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [files],
        "validation_context": validation,
    }


def _cluster(port: int, **more: Any) -> Json:
    endpoint = {"endpoint": {"address": _address(port)}}
    limit = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    return {
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [limit]},
        **more,
    }


def _hcm(codec: str, filters: list[Json], route: Json, **more: Any) -> Json:
    host = {"name": "all", "domains": [HOST, "*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
    return _named(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        codec_type=codec,
        route_config={"name": "route", "virtual_hosts": [host]},
        http_filters=[*filters, _ROUTER],
        **more,
    )


def _bootstrap(port: int, chain: Json, cluster: Json, **listener: Any) -> Json:
    return {
        "static_resources": {
            "listeners": [
                {"name": "in", "address": _address(port), "filter_chains": [chain], **listener},
            ],
            "clusters": [cluster],
        },
    }


def _rbac() -> Json:
    uri = "spiffe://cluster.local/ns/default/sa/client"
    principal = {"authenticated": {"principal_name": {"exact": uri}}}
    policy = {"permissions": [{"any": True}], "principals": [principal]}
    return _named("envoy.filters.http.rbac", _FILTER + "rbac.v3.RBAC", rules={"policies": {"client": policy}})


_H2_OPTIONS = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _any(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicit_http_config={"http2_protocol_options": {}},
    )
}


def _first(folder: Path, ports: Ports, filters: list[Json], route: Json, hcm: Json, listener: Json) -> Json:
    tls = _any(
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context=_tls(folder, "client", "server"),
        sni="backend",
    )
    cluster = _cluster(
        ports.b,
        outlier_detection={},
        typed_extension_protocol_options=_H2_OPTIONS,
        transport_socket={"name": "envoy.transport_sockets.tls", "typed_config": tls},
    )
    codec = hcm.pop("codec", "HTTP1")
    return _bootstrap(ports.a, {"filters": [_hcm(codec, filters, route, **hcm)]}, cluster, **listener)


def _second(folder: Path, ports: Ports, filters: list[Json], route: Json, hcm: Json, listener: Json) -> Json:
    tls = _any(
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=_tls(folder, "server", None),
        require_client_certificate=True,
    )
    codec = hcm.pop("codec", "HTTP2")
    chain = {
        "filters": [_hcm(codec, filters, route, **hcm)],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    return _bootstrap(ports.b, chain, _cluster(ports.backend), **listener)


def _envoy(folder: Path, name: str, bootstrap: Json, base_id: int) -> list[str]:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(bootstrap))
    return [
        str(envoy_binary()),
        "-c",
        str(path),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "warning",
        "--base-id",
        str(base_id),
    ]


def envoy_lean(folder: Path, ports: Ports) -> list[list[str]]:
    route = {"cluster": "next", "timeout": "15s"}
    return [
        _envoy(folder, "lean-a", _first(folder, ports, [], route, {}, {}), 1),
        _envoy(folder, "lean-b", _second(folder, ports, [_rbac()], route, {}, {}), 2),
    ]


_LUA = """
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:replace("x-envoy-peer-metadata-id", "sidecar~127.0.0.1~client.default")
  headers:replace("x-envoy-peer-metadata", "bmFtZT1jbGllbnQ=")
end
"""
_TAGS = (
    "reporter",
    "source_workload",
    "source_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "destination_workload",
    "destination_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "request_protocol",
    "response_code",
    "response_flags",
)
_LOG_FIELDS = (
    "START_TIME",
    "REQ(:METHOD)",
    "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)",
    "PROTOCOL",
    "RESPONSE_CODE",
    "RESPONSE_FLAGS",
    "RESPONSE_CODE_DETAILS",
    "CONNECTION_TERMINATION_DETAILS",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "DURATION",
    "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)",
    "REQ(X-FORWARDED-FOR)",
    "REQ(USER-AGENT)",
    "REQ(X-REQUEST-ID)",
    "REQ(:AUTHORITY)",
    "UPSTREAM_HOST",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "REQUESTED_SERVER_NAME",
    "ROUTE_NAME",
)


def _istio_filters(inbound: bool) -> list[Json]:
    state = {
        "object_key": "envoy.string",
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": "%REQ(:AUTHORITY)%"}},
    }
    lua = _named("lua", _FILTER + "lua.v3.Lua", default_source_code={"inline_string": _LUA})
    filters = [
        lua,
        _named("state", _FILTER + "set_filter_state.v3.Config", on_request_headers=[state]),
        _named(
            "envoy.filters.http.grpc_stats", _FILTER + "grpc_stats.v3.FilterConfig", emit_filter_state=True
        ),
        _named("envoy.filters.http.cors", _FILTER + "cors.v3.Cors"),
        _named("envoy.filters.http.fault", _FILTER + "fault.v3.HTTPFault"),
    ]
    if inbound:
        bucket = {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"}
        share = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        filters += [
            _rbac(),
            _named(
                "envoy.filters.http.local_ratelimit",
                _FILTER + "local_ratelimit.v3.LocalRateLimit",
                stat_prefix="limit",
                token_bucket=bucket,
                filter_enabled=share,
                filter_enforced=share,
            ),
        ]
    return filters


def _istio_hcm(folder: Path, name: str, more: Json) -> Json:
    tags = [{"name": t, "value_format": "%REQ(:AUTHORITY)%"} for t in _TAGS]
    counter = {"stat": {"name": "requests_total", "tags": tags}, "value_fixed": 1}
    histograms = [
        {"stat": {"name": n, "tags": tags}, "unit": unit, "value_format": value}
        for n, unit, value in (
            ("request_duration", "Milliseconds", "%DURATION%"),
            ("request_bytes", "Bytes", "%BYTES_RECEIVED%"),
            ("response_bytes", "Bytes", "%BYTES_SENT%"),
        )
    ]
    fields = {f"field_{i}": f"%{f}%" for i, f in enumerate(_LOG_FIELDS)}
    return {
        "codec": "AUTO",
        "access_log": [
            _named(
                "stats",
                "envoy.extensions.access_loggers.stats.v3.Config",
                stat_prefix="mesh",
                counters=[counter],
                histograms=histograms,
            ),
            _named(
                "file",
                "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                path=str(folder / f"{name}.log"),
                log_format={"json_format": fields},
            ),
        ],
        **more,
    }


def envoy_istio_like(folder: Path, ports: Ports) -> list[list[str]]:
    retry = {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,503", "num_retries": 2}
    listeners = {
        "listener_filters": [
            _named(
                "http_inspector",
                "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
            )
        ]
    }
    tls_listener = {
        "listener_filters": [
            _named(
                "tls_inspector",
                "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            ),
            *listeners["listener_filters"],
        ]
    }
    xfcc = {
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
    }
    first = _first(
        folder,
        ports,
        _istio_filters(False),
        {"cluster": "next", "timeout": "0s", "retry_policy": retry},
        _istio_hcm(folder, "istio-a", {"use_remote_address": False}),
        listeners,
    )
    second = _second(
        folder,
        ports,
        _istio_filters(True),
        {"cluster": "next", "timeout": "0s"},
        _istio_hcm(folder, "istio-b", xfcc),
        tls_listener,
    )
    return [_envoy(folder, "istio-a", first, 3), _envoy(folder, "istio-b", second, 4)]


def nginx_http(folder: Path, ports: Ports) -> list[list[str]] | None:
    program = tool("nginx")
    if program is None:
        return None
    common = (
        "daemon off; master_process off; worker_processes 1; pid {pid}; error_log {log} error;\n"
        "events {{ worker_connections 4096; }}\n"
        "http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {tmp}; proxy_temp_path {tmp};"
        " fastcgi_temp_path {tmp}; uwsgi_temp_path {tmp}; scgi_temp_path {tmp};\n{body}\n}}\n"
    )
    tls = "ssl_protocols TLSv1.3;"
    a = (
        f"upstream next {{ server 127.0.0.1:{ports.b}; keepalive 256; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{ports.a}; server_name {HOST}; location / {{ proxy_pass https://next;"
        f" proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host;"
        f" proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-For $remote_addr;"
        f" proxy_ssl_certificate {folder}/client.pem; proxy_ssl_certificate_key {folder}/client.key;"
        f" proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_verify on; proxy_ssl_name server;"
        f" proxy_ssl_protocols TLSv1.3; }} }}"
    )
    b = (
        f"upstream next {{ server 127.0.0.1:{ports.backend}; keepalive 256; keepalive_requests 100000000; }}\n"
        f"server {{ listen 127.0.0.1:{ports.b} ssl; {tls} ssl_certificate {folder}/server.pem;"
        f" ssl_certificate_key {folder}/server.key; ssl_client_certificate {folder}/ca.pem; ssl_verify_client on;"
        f' location / {{ if ($ssl_client_s_dn != "CN=client") {{ return 403; }} proxy_pass http://next;'
        f" proxy_http_version 1.1; proxy_set_header Connection ''; }} }}"
    )
    commands = []
    for name, body in (("nginx-a", a), ("nginx-b", b)):
        path = folder / f"{name}.conf"
        path.write_text(
            common.format(
                pid=folder / f"{name}.pid", log=folder / f"{name}.err", tmp=folder / "tmp", body=body
            )
        )
        commands.append([program, "-c", str(path), "-e", str(folder / f"{name}.err")])
    return commands


def nginx_stream(folder: Path, ports: Ports) -> list[list[str]] | None:
    program = tool("nginx")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if program is None or not module.exists():
        return None
    head = (
        f"load_module {module}; daemon off; master_process off; worker_processes 1; pid {{pid}};"
        " error_log {log} error;\nevents {{ worker_connections 4096; }}\nstream {{ {body} }}\n"
    )
    a = (
        f"server {{ listen 127.0.0.1:{ports.a}; proxy_pass 127.0.0.1:{ports.b}; proxy_ssl on;"
        f" proxy_ssl_certificate {folder}/client.pem; proxy_ssl_certificate_key {folder}/client.key;"
        f" proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_verify on; proxy_ssl_name server;"
        f" proxy_ssl_protocols TLSv1.3; }}"
    )
    b = (
        f"server {{ listen 127.0.0.1:{ports.b} ssl; ssl_protocols TLSv1.3; ssl_certificate {folder}/server.pem;"
        f" ssl_certificate_key {folder}/server.key; ssl_client_certificate {folder}/ca.pem; ssl_verify_client on;"
        f" proxy_pass 127.0.0.1:{ports.backend}; }}"
    )
    commands = []
    for name, body in (("stream-a", a), ("stream-b", b)):
        path = folder / f"{name}.conf"
        path.write_text(head.format(pid=folder / f"{name}.pid", log=folder / f"{name}.err", body=body))
        commands.append([program, "-c", str(path), "-e", str(folder / f"{name}.err")])
    return commands


def haproxy(folder: Path, ports: Ports) -> list[list[str]] | None:
    program = tool("haproxy")
    if program is None:
        return None
    for name in ("client", "server"):
        both = (folder / f"{name}.pem").read_bytes() + (folder / f"{name}.key").read_bytes()
        (folder / f"{name}-both.pem").write_bytes(both)
    head = (
        "global\n nbthread 1\n maxconn 4096\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n"
        " timeout server 60s\n http-reuse always\n"
    )
    a = (
        f"frontend in\n bind 127.0.0.1:{ports.a}\n unique-id-format %[uuid()]\n unique-id-header x-request-id\n"
        f" option forwardfor\n default_backend next\nbackend next\n server s 127.0.0.1:{ports.b} ssl"
        f" crt {folder}/client-both.pem ca-file {folder}/ca.pem verify required verifyhost server\n"
    )
    b = (
        f"frontend in\n bind 127.0.0.1:{ports.b} ssl crt {folder}/server-both.pem ca-file {folder}/ca.pem"
        f" verify required\n http-request deny unless {{ ssl_c_s_dn(cn) client }}\n default_backend next\n"
        f"backend next\n server s 127.0.0.1:{ports.backend}\n"
    )
    commands = []
    for name, body in (("haproxy-a", a), ("haproxy-b", b)):
        path = folder / f"{name}.cfg"
        path.write_text(head + body)
        commands.append([program, "-db", "-f", str(path)])
    return commands


PEERS = (
    Peer("envoy-lean", envoy_lean),
    Peer("envoy-istio-like", envoy_istio_like),
    Peer("nginx", nginx_http),
    Peer("nginx-stream", nginx_stream),
    Peer("haproxy", haproxy),
)
