"""Istio's mesh-wide settings, as files have them: ``MeshConfig``, and the ``IstioOperator`` around it.

They come as ``spec.meshConfig`` of an IstioOperator, or as the key ``mesh`` of the ConfigMap ``istio`` in the
root namespace. Fields that are not applied are listed in :mod:`retia.config.support`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from retia.config.codes import Code
from retia.config.schema.base import Model, Path, Problem
from retia.config.schema.http_action import HTTPRetry
from retia.config.schema.load_balancer import LocalityLoadBalancerSetting
from retia.config.schema.traffic_policy import TcpKeepalive
from retia.config.schema.types import (
    Flag,
    Int,
    PositiveDuration,
    Text,
    Unread,
    Visibility,
    ZeroOrDuration,
    export_problems,
)


class Encoding(StrEnum):
    TEXT = "TEXT"
    JSON = "JSON"


class Upgrade(StrEnum):
    DO_NOT_UPGRADE = "DO_NOT_UPGRADE"
    UPGRADE = "UPGRADE"


class UnknownDestinations(StrEnum):
    REGISTRY_ONLY = "REGISTRY_ONLY"
    ALLOW_ANY = "ALLOW_ANY"


class MeshOutboundPolicy(Model):
    mode: UnknownDestinations = UnknownDestinations.ALLOW_ANY


class PathNormalization(Model):
    normalization: Text = "DEFAULT"


class MeshConfig(Model):
    """Absent fields leave the mesh's own settings as they are."""

    access_log_encoding: Encoding | None = None
    access_log_file: Text | None = None
    """A file or ``/dev/stdout``; empty: no log."""
    access_log_format: Text | None = None
    ca: Unread | None = None
    ca_certificates: Unread | None = None
    certificates: Unread | None = None
    config_sources: Unread | None = None
    connect_timeout: PositiveDuration | None = None
    default_config: Unread | None = None
    default_destination_rule_export_to: tuple[Visibility, ...] = ()
    default_http_retry_policy: HTTPRetry | None = None
    default_providers: Unread | None = None
    default_service_export_to: tuple[Visibility, ...] = ()
    default_traffic_policy: Unread | None = None
    default_virtual_service_export_to: tuple[Visibility, ...] = ()
    disable_envoy_listener_log: Flag | None = None
    discovery_selectors: Unread | None = None
    dns_refresh_rate: PositiveDuration | None = None
    enable_auto_mtls: Flag | None = None
    enable_envoy_access_log_service: Flag | None = None
    enable_prometheus_merge: Flag | None = None
    enable_tracing: Flag | None = None
    extension_providers: Unread | None = None
    h2_upgrade_policy: Upgrade | None = None
    hbone_idle_timeout: ZeroOrDuration | None = None
    inbound_cluster_stat_name: Text | None = None
    inbound_traffic_policy: Unread | None = None
    ingress_class: Text | None = None
    ingress_controller_mode: Text | None = None
    ingress_selector: Text | None = None
    ingress_service: Text | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    mesh_mtls: Annotated[Unread | None, Field(alias="meshMTLS")] = None
    outbound_cluster_stat_name: Text | None = None
    outbound_traffic_policy: MeshOutboundPolicy | None = None
    path_normalization: PathNormalization | None = None
    protocol_detection_timeout: ZeroOrDuration | None = None
    proxy_http_port: Int | None = None
    proxy_inbound_listen_port: Int | None = None
    proxy_listen_port: Int | None = None
    root_namespace: Text | None = None
    service_entry_visibility: Unread | None = None
    service_scope_configs: Unread | None = None
    service_settings: Unread | None = None
    tcp_keepalive: TcpKeepalive | None = None
    tls_defaults: Unread | None = None
    trust_domain: Text | None = None
    trust_domain_aliases: Unread | None = None
    verify_certificate_at_client: Flag | None = None
    zone_aware_lb_setting: Unread | None = None

    def problems(self) -> Iterator[Problem]:
        for field in ("service", "virtual_service", "destination_rule"):
            given = getattr(self, f"default_{field}_export_to")
            name = "default" + "".join(part.title() for part in field.split("_")) + "ExportTo"
            for problem in export_problems(given, hidden=True):
                yield Problem((name, *problem.path[1:]), problem.message, problem.code)


class IstioOperator(Model):
    """Of an installer's file only ``meshConfig`` is for the mesh."""

    mesh_config: MeshConfig | None = None
    profile: Text = ""
    hub: Text = ""
    tag: Unread | None = None
    namespace: Text = ""
    revision: Text = ""
    compatibility_version: Text = ""
    default_revision: Flag | None = None
    install_package_path: Text = ""
    components: Unread | None = None
    addon_components: Unread | None = None
    unvalidated_values: Unread | None = None
    values: Unread | None = None


CONFIG_MAP = "istio"
CONFIG_MAP_KEY = "mesh"


def of_text(text: str) -> MeshConfig | None:
    """The settings of a ConfigMap's text; ``None``: it can't be read."""
    try:
        raw = yaml.safe_load(text)
        return MeshConfig.model_validate(raw if raw is not None else {}, by_alias=True, by_name=False)
    except (yaml.YAMLError, ValidationError):
        return None


def raw_of(name: str, data: Any) -> tuple[Path, Any] | None:
    """Where in the data of a ConfigMap settings stand, and what they are: a mapping, or a text's problem as
    text; ``None``: it holds none."""
    text = data.get(CONFIG_MAP_KEY) if name == CONFIG_MAP and isinstance(data, Mapping) else None
    if not isinstance(text, str):
        return None
    path: Path = ("data", CONFIG_MAP_KEY)
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return path, str(error).splitlines()[0]
    return path, {} if raw is None else raw


def text_problem(raw: Any) -> Problem | None:
    """What is wrong with a text that is no mapping."""
    if isinstance(raw, Mapping):
        return None
    return Problem((), f"is no YAML mapping of MeshConfig ({raw})", Code.BAD_VALUE)
