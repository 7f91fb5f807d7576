"""The headers of responses that proxies make themselves, as generated."""

from __future__ import annotations

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.config import replies
from retia.config.replies import REPLIES
from retia.translate import hcm, local_replies


def test_every_manager_has_them() -> None:
    manager = hcm.new_manager("x")
    assert manager.proxy_status_config.use_node_id
    codes = {
        option.header.value
        for mapper in manager.local_reply_config.mappers
        for option in mapper.headers_to_add
        if option.header.key == replies.HEADER
    }
    assert codes == set(REPLIES)


def test_the_outside_is_told_no_details() -> None:
    manager = http_connection_manager_pb2.HttpConnectionManager()
    local_replies.put(manager, details=False)
    assert manager.proxy_status_config.remove_details
    assert manager.proxy_status_config.literal_proxy_name == "retia"


def test_the_narrower_reason_comes_first() -> None:
    assert replies.of("URX,UF", "upstream_reset{TLS_error:x}") == REPLIES["RT5006"]
    assert replies.of("UF", "upstream_reset{remote_connection_failure}") == REPLIES["RT5004"]
    assert replies.of("-", "rbac_access_denied_matched_policy[a]") == REPLIES["RT5015"]
    assert replies.of("-", "direct_response") is None
