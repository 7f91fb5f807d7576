"""Access logs: one line for each request, and for each connection of bytes, where the mesh asks for them."""

from __future__ import annotations

import json
from typing import Any

from envoy.extensions.access_loggers.file.v3 import file_pb2

from retia.model.mesh import AccessLog
from retia.model.snapshot import View
from retia.policy.mesh_settings import ISTIO_LOG_FORMAT
from retia.policy.registry import mesh
from retia.translate import pb

FILE = "envoy.access_loggers.file"
_JSON_FIELDS = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
}
"""Istio's fields."""


def put(message: Any, view: View) -> None:
    """Give a connection manager, or a proxy of bytes, the mesh's access log."""
    log = mesh(view).access_log
    if not log.path:
        return
    config = file_pb2.FileAccessLog()
    config.path = log.path
    if log.json:
        config.log_format.json_format.update(_fields(log))
    else:
        config.log_format.text_format_source.inline_string = log.format or ISTIO_LOG_FORMAT
    entry = message.access_log.add()
    entry.name = FILE
    pb.pack(entry.typed_config, config)


def _fields(log: AccessLog) -> dict[str, Any]:
    """The format's own fields; Istio's where it has none, or none that can be read."""
    try:
        found = json.loads(log.format) if log.format else _JSON_FIELDS
    except ValueError:
        return _JSON_FIELDS
    return found if isinstance(found, dict) else _JSON_FIELDS
