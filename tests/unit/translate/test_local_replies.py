"""The headers of responses that proxies make themselves, as generated."""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from retia.config import replies
from retia.config.replies import REPLIES
from retia.translate import hcm, local_replies


def codes(manager: Any) -> set[str]:
    return {
        option.header.value
        for mapper in manager.local_reply_config.mappers
        for option in mapper.headers_to_add
        if option.header.key == replies.HEADER
    }


def test_every_manager_has_those_that_flags_tell() -> None:
    manager = hcm.new_manager("x")
    assert manager.proxy_status_config.use_node_id
    assert codes(manager) == {r.code for r in REPLIES.values() if (r.flags and not r.within) or r.lacks}


def test_no_manager_asks_for_details_without_need() -> None:
    """Each condition in CEL takes memory in a manager of each port that any service declares."""
    mappers = hcm.new_manager("x").local_reply_config.mappers
    assert not any(mapper.filter.HasField("extension_filter") for mapper in mappers)


def test_a_filter_that_sets_no_flag_brings_its_codes() -> None:
    manager = http_connection_manager_pb2.HttpConnectionManager()
    local_replies.put_for(manager, ["envoy.filters.http.buffer", "envoy.filters.http.local_ratelimit.ns/a"])
    assert codes(manager) == {"RT5013", "RT5017"}


def test_every_code_is_told_by_something() -> None:
    assert all(reply.flags or reply.lacks or reply.filters for reply in REPLIES.values())


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
