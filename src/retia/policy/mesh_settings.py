"""The mesh's settings, with what MeshConfig objects say laid over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from retia.config.schema import mesh_config
from retia.config.schema.mesh_config import MeshConfig
from retia.model.ids import MESH_NAMESPACE
from retia.model.mesh import AccessLog, DefaultRetry, LocalityRules, MeshSettings
from retia.model.objects import ConfigObject, ObjectRef

ISTIO_LOG_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% '
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's default, which tools for its logs expect."""


def is_settings(ref: ObjectRef) -> bool:
    """Whether an object may hold settings of the mesh."""
    if ref.kind == "ConfigMap":
        return ref.namespace == MESH_NAMESPACE and ref.name == mesh_config.CONFIG_MAP
    return ref.kind == "IstioOperator"


def effective(settings: MeshSettings, objects: Iterable[ConfigObject]) -> MeshSettings:
    """``settings`` with the objects' over them: a ConfigMap before IstioOperators, of those the oldest."""
    ordered = sorted(objects, key=lambda o: (o.ref.kind != "ConfigMap", o.order))
    for obj in reversed(ordered):
        config = _config_of(obj)
        if config is not None:
            settings = applied(settings, config)
    return settings


def _config_of(obj: ConfigObject) -> MeshConfig | None:
    if obj.ref.kind == "ConfigMap":
        return mesh_config.of_text(dict(obj.spec.data).get(mesh_config.CONFIG_MAP_KEY, ""))
    found: MeshConfig | None = obj.spec.mesh_config
    return found


def applied(settings: MeshSettings, config: MeshConfig) -> MeshSettings:
    """What one MeshConfig makes of settings."""
    changes: dict[str, Any] = {
        "connect_timeout_s": _seconds(config.connect_timeout),
        "protocol_detection_timeout_s": _seconds(config.protocol_detection_timeout),
        "dns_refresh_s": _seconds(config.dns_refresh_rate),
        "service_export": config.default_service_export_to or None,
        "virtual_service_export": config.default_virtual_service_export_to or None,
        "destination_rule_export": config.default_destination_rule_export_to or None,
    }
    if config.outbound_traffic_policy is not None:
        changes["outbound_allow_any"] = str(config.outbound_traffic_policy.mode) == "ALLOW_ANY"
    if config.h2_upgrade_policy is not None:
        changes["upgrade_to_http2"] = str(config.h2_upgrade_policy) == "UPGRADE"
    if config.tcp_keepalive is not None:
        alive = config.tcp_keepalive
        changes["keepalive"] = (alive.probes, _whole(alive.time), _whole(alive.interval))
    if config.locality_lb_setting is not None:
        rules = config.locality_lb_setting
        changes["locality"] = LocalityRules(
            rules.enabled is not False,
            tuple((item.from_, item.to) for item in rules.distribute),
            tuple((item.from_, item.to) for item in rules.failover),
            rules.failover_priority,
        )
    if config.default_http_retry_policy is not None:
        retry = config.default_http_retry_policy
        changes["default_retries"] = retry.attempts
        changes["retry"] = DefaultRetry(
            retry.retry_on or "",
            _seconds(retry.per_try_timeout),
            _seconds(retry.backoff),
            retry.retry_ignore_previous_hosts,
            bool(retry.retry_remote_localities),
        )
    changes["access_log"] = _access_log(settings.access_log, config)
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def _access_log(log: AccessLog, config: MeshConfig) -> AccessLog:
    return AccessLog(
        log.path if config.access_log_file is None else config.access_log_file,
        log.format if config.access_log_format is None else config.access_log_format,
        log.json if config.access_log_encoding is None else str(config.access_log_encoding) == "JSON",
    )


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None else round(float(value))
