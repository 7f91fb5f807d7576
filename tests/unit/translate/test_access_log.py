"""Access logs: where, and in which form."""

from __future__ import annotations

from typing import Any

from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from retia.model.mesh import AccessLog
from retia.policy.mesh_settings import ISTIO_LOG_FORMAT
from retia.translate import access_log
from tests.support.world import World


def logged(log: AccessLog) -> Any:
    """The configuration of the one log; ``None``: there is none."""
    message = tcp_proxy_pb2.TcpProxy()
    access_log.put(message, World(access_log=log).client("web").view)
    if not message.access_log:
        return None
    config = file_pb2.FileAccessLog()
    message.access_log[0].typed_config.Unpack(config)
    return config


def test_without_a_path_nothing_is_logged() -> None:
    assert logged(AccessLog(format="x")) is None


def test_text_is_istios_unless_a_format_is_given() -> None:
    assert logged(AccessLog("/dev/stdout")).log_format.text_format_source.inline_string == ISTIO_LOG_FORMAT
    given = logged(AccessLog("/a.log", "%DURATION%\n"))
    assert given.path == "/a.log"
    assert given.log_format.text_format_source.inline_string == "%DURATION%\n"


def test_json_has_the_formats_own_fields_or_istios() -> None:
    own = logged(AccessLog("/a.log", '{"took": "%DURATION%"}', json=True)).log_format.json_format
    istios = logged(AccessLog("/a.log", "not JSON", json=True)).log_format.json_format

    assert dict(own) == {"took": "%DURATION%"}
    assert istios["route_name"] == "%ROUTE_NAME%"
