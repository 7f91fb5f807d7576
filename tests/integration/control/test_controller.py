"""The controller as agents and people meet it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from retia._generated import agent_pb2 as pb
from retia.aio.grpc import MixedCodec
from retia.authority.keys import make_key
from retia.authority.requests import make_request
from retia.model.resource import TypeUrl
from retia.xds.server import DELTA_METHOD
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.integration.control.conftest import Agent, RunningController

CDS, EDS, LDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINTS, TypeUrl.LISTENER
VHDS = TypeUrl.VIRTUAL_HOST
REVIEWS = "reviews.default.svc.cluster.local"

CANARY = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - timeout: %s
    route:
    - destination: {host: reviews}
"""


class TestSession:
    async def test_a_workload_becomes_a_name_with_an_address(self, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: REVIEWS in agent.names)
        await until(lambda: list(agent.names[REVIEWS].endpoints) == ["127.64.0.1:9080"])
        assert agent.names[REVIEWS].vip.startswith("240.240.")

    async def test_listeners_come_unasked(self, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: "inbound" in agent.has("reviews-0", LDS))
        assert "outbound-http" in agent.has("reviews-0", LDS)

    async def test_a_virtual_host_brings_its_cluster_and_endpoints(self, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await agent.run_workload("client-0", n=2)
        await until(lambda: REVIEWS in agent.names)
        await agent.subscribe("client-0", VHDS, "9080/reviews:9080")
        await until(lambda: agent.has("client-0", VHDS))
        assert f"outbound|9080||{REVIEWS}" in agent.has("client-0", CDS)
        assert f"outbound|9080||{REVIEWS}" in agent.has("client-0", EDS)

    async def test_what_changes_is_sent_and_what_ends_is_withdrawn(self, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await agent.run_workload("client-0", n=2)
        await until(lambda: REVIEWS in agent.names)
        await agent.subscribe("client-0", VHDS, "9080/reviews:9080")
        cluster = f"outbound|9080||{REVIEWS}"
        await until(lambda: cluster in agent.has("client-0", EDS))
        before = agent.has("client-0", EDS)[cluster].version
        await agent.run_workload("reviews-1", "reviews", n=3)
        await until(lambda: agent.has("client-0", EDS)[cluster].version != before)
        await agent.send(workload=pb.WorkloadUpdate(removed="default/reviews-1"))
        await until(lambda: agent.has("client-0", EDS)[cluster].version == before)

    async def test_the_standby_copy_has_what_nobody_asked_for(self, agent: Agent) -> None:
        await agent.run_workload("client-0", n=2)
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: agent.standby_complete)
        await until(lambda: (str(VHDS), f"9080/{REVIEWS}:9080") in agent.standby)
        await until(lambda: (str(CDS), f"outbound|9080||{REVIEWS}") in agent.standby)

    async def test_a_second_replica_gets_what_the_first_has_used(self, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await agent.run_workload("client-0", n=2)
        await until(lambda: REVIEWS in agent.names)
        await agent.subscribe("client-0", VHDS, "9080/reviews:9080")
        ref = pb.Ref(type_url=VHDS, name="9080/reviews:9080")
        await until(lambda: agent.has("client-0", VHDS))
        await agent.send(learned=pb.Learned(proxy="default/client-0", names=[ref]))
        await agent.run_workload("client-1", n=3)
        await until(lambda: agent.has("client-1", VHDS))
        assert agent.has("client-1", CDS)

    async def test_a_new_session_is_sent_nothing_that_is_held(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await agent.subscribe("reviews-0", VHDS, "9080/reviews:9080")
        await until(lambda: agent.has("reviews-0", EDS))
        await until(lambda: agent.names)
        agent.hello.workloads.append(agent.workload("reviews-0", "reviews"))
        proxy = agent.hello.proxies.add()
        proxy.CopyFrom(agent.sidecar("reviews-0"))
        for (_, kind), found in agent.resources.items():
            for each in found.values():
                proxy.held.add(type_url=kind, name=each.name, version=each.version)
        await agent.disconnect()
        await controller.stop()
        await controller.start()
        agent.messages.clear()
        await agent.connect()
        await agent.subscribe("reviews-0", VHDS, *agent.has("reviews-0", VHDS))
        await until(lambda: any(m.HasField("names") for m in agent.messages))
        await agent.run_workload("other-0", "other", n=4)
        await until(lambda: "other.default.svc.cluster.local" in agent.names)
        sent = [r.name for m in agent.messages for r in m.resources.resources if "reviews" in r.name]
        assert sent == []

    async def test_an_agent_speaks_for_its_own_host_only(self, agent: Agent) -> None:
        agent.hello.host = "two"
        await agent.disconnect()
        with pytest.raises(GRPCError, match="may not speak for host two"):
            await agent.connect()

    async def test_a_workload_of_a_living_host_is_not_taken_over(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: REVIEWS in agent.names)
        other = type(agent)(controller, "two")
        await other.join(await controller.token())
        await other.connect()
        await other.run_workload("reviews-0", "reviews", n=9)
        await other.run_workload("marker-0", "marker", n=8)
        await until(lambda: "marker.default.svc.cluster.local" in agent.names)
        assert list(agent.names[REVIEWS].endpoints) == ["127.64.0.1:9080"]
        await other.disconnect()


class TestIdentity:
    async def test_a_workload_of_this_host_is_signed(self, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: agent.names)
        request = pb.SignWorkloadRequest(workload="default/reviews-0", csr_der=make_request(make_key()))
        reply = await agent.call("SignWorkload", request)
        assert reply.chain_pem.startswith(b"-----BEGIN CERTIFICATE")
        assert reply.trust_domain == "cluster.local"

    async def test_a_workload_that_is_not_here_is_refused(self, agent: Agent) -> None:
        request = pb.SignWorkloadRequest(workload="default/other-0", csr_der=make_request(make_key()))
        with pytest.raises(GRPCError, match="not registered on host one"):
            await agent.call("SignWorkload", request)

    async def test_a_workload_of_another_host_is_refused(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: agent.names)
        other = type(agent)(controller, "two")
        await other.join(await controller.token())
        request = pb.SignWorkloadRequest(workload="default/reviews-0", csr_der=make_request(make_key()))
        with pytest.raises(GRPCError, match="not registered on host two"):
            await other.call("SignWorkload", request)

    async def test_a_host_renews(self, agent: Agent) -> None:
        reply = await agent.call("Renew", pb.RenewRequest(csr_der=make_request(agent.key)))
        assert reply.chain_pem.startswith(b"-----BEGIN CERTIFICATE")

    async def test_a_token_is_good_once(self, controller: RunningController, agent: Agent) -> None:
        token = await controller.token()
        await type(agent)(controller, "two").join(token)
        with pytest.raises(GRPCError, match="was used by host two"):
            await type(agent)(controller, "three").join(token)


class TestLeases:
    async def test_a_lost_host_leaves_after_its_lease_and_is_held_first(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: agent.names)
        for _ in range(5):  # until the controller's own start is over
            await asyncio.sleep(0.25)
            await agent.send(heartbeat=pb.Heartbeat())
        await agent.disconnect()
        started = time.monotonic()

        async def held() -> bool:
            return bool((await controller.api("GET", "/v1/status"))["registry_frozen"])

        await until(held)
        status = await controller.api("GET", "/v1/status")
        assert status["registry_reason"] == "1 of 1 hosts fell silent within 1 s"
        assert (await controller.api("GET", "/v1/hosts"))["items"][0]["lease"] == "held"

        async def gone() -> bool:
            return not (await controller.api("GET", "/v1/services"))["items"]

        await until(gone)
        assert time.monotonic() - started > 1.5

    # However slowly the restart goes, no lease may lapse meanwhile.
    @pytest.mark.parametrize("controller", [60.0], indirect=True)
    async def test_a_restarted_controller_knows_all_endpoints(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: agent.names)
        await agent.disconnect()
        await controller.stop()
        await controller.start()
        services = (await controller.api("GET", "/v1/services"))["items"]
        assert [(s["host"], s["endpoints"]) for s in services] == [(REVIEWS, 1)]
        status = await controller.api("GET", "/v1/status")
        assert status["registry_frozen"]


class TestApi:
    async def test_an_applied_rule_is_delivered(self, controller: RunningController, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await agent.run_workload("client-0", n=2)
        await until(lambda: REVIEWS in agent.names)
        await agent.subscribe("client-0", VHDS, "9080/reviews:9080")
        await until(lambda: agent.has("client-0", VHDS))
        (host,) = agent.has("client-0", VHDS)
        before = agent.has("client-0", VHDS)[host].version
        applied = await controller.apply(CANARY % "3s")
        assert applied["applied"], applied
        await until(lambda: agent.has("client-0", VHDS)[host].version != before)
        version = agent.has("client-0", VHDS)[host].version
        pending = await controller.api("GET", "/v1/objects/vs/default/reviews/delivery")
        assert (pending["acked"], pending["pending"]) == (0, 1)
        status = pb.ResourceStatus(type_url=VHDS, name=host, version=version, state="acked")
        await agent.send(status=pb.Status(proxy="default/client-0", resources=[status]))

        async def acked() -> bool:
            found = await controller.api("GET", "/v1/objects/virtualservices/default/reviews/delivery")
            return bool(found["acked"] == 1)

        await until(acked)
        await controller.api("DELETE", "/v1/objects/VirtualService/default/reviews")
        await until(lambda: agent.has("client-0", VHDS)[host].version == before)

    async def test_a_refused_version_is_quarantined(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await agent.run_workload("client-0", n=2)
        await until(lambda: REVIEWS in agent.names)
        await agent.subscribe("client-0", VHDS, "9080/reviews:9080")
        await until(lambda: agent.has("client-0", VHDS))
        (host,) = agent.has("client-0", VHDS)
        before = agent.has("client-0", VHDS)[host].version
        await controller.apply(CANARY % "3s")
        await until(lambda: agent.has("client-0", VHDS)[host].version != before)
        version = agent.has("client-0", VHDS)[host].version
        status = pb.ResourceStatus(type_url=VHDS, name=host, version=version, state="nacked", error="too bad")
        await agent.send(status=pb.Status(proxy="default/client-0", resources=[status]))

        async def refused() -> bool:
            found = await controller.api("GET", "/v1/proxy?proxy=default/client-0")
            return bool(found["nacks"])

        await until(refused)
        proxy = await controller.api("GET", "/v1/proxy?proxy=default/client-0")
        assert proxy["nacks"][0]["error"] == "too bad"
        assert proxy["nacks"][0]["object"] == "VirtualService/default/reviews"

    async def test_wrong_configuration_is_refused_whole(self, controller: RunningController) -> None:
        result = await controller.apply(CANARY % "3s" + "---\n" + CANARY % "never")
        assert not result["applied"]
        assert result["findings"]
        assert (await controller.api("GET", "/v1/objects"))["items"] == []

    async def test_a_proxy_is_asked_through_its_agent(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("client-0")
        await until(lambda: agent.has("client-0", LDS))
        reply = await controller.api("GET", "/v1/proxy/query?proxy=default/client-0&path=clusters")
        assert reply["body"].lstrip("/") == "clusters"

    async def test_the_inventory(self, controller: RunningController, agent: Agent) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await until(lambda: agent.has("reviews-0", LDS))
        (workload,) = (await controller.api("GET", "/v1/workloads"))["items"]
        assert workload["identity"] == "spiffe://cluster.local/ns/default/sa/reviews"
        (host,) = (await controller.api("GET", "/v1/hosts"))["items"]
        assert (host["id"], host["lease"], host["workloads"]) == ("one", "valid", 1)
        service = await controller.api("GET", "/v1/services/reviews")
        assert service["endpoint_list"][0]["address"] == "127.64.0.1"
        (proxy,) = (await controller.api("GET", "/v1/proxies"))["items"]
        assert proxy["id"] == "default/reviews-0"

    async def test_mesh_settings_outlive_a_restart(self, controller: RunningController) -> None:
        await controller.api("PATCH", "/v1/mesh", {"default_retries": 3})
        await controller.stop()
        await controller.start()
        assert (await controller.api("GET", "/v1/mesh"))["default_retries"] == 3


class TestDirectStreams:
    async def test_a_client_that_speaks_xds_is_served_and_followed(
        self, controller: RunningController, agent: Agent
    ) -> None:
        await agent.run_workload("reviews-0", "reviews")
        await agent.run_workload("client-0", n=2)
        await until(lambda: REVIEWS in agent.names)
        await until(lambda: agent.has("client-0", LDS))
        cluster = f"outbound|9080||{REVIEWS}"
        channel = agent.channel()
        channel._codec = MixedCodec()
        try:
            async with channel.request(DELTA_METHOD, Cardinality.STREAM_STREAM, bytes, bytes) as stream:
                first = _request(EDS, cluster)
                first.node.id = "default/client-0"
                await stream.send_message(first.SerializeToString())
                response = DeltaDiscoveryResponse.FromString(await stream.recv_message())
                assert [r.name for r in response.resources] == [cluster]
                ack = _request(EDS)
                ack.response_nonce = response.nonce
                await stream.send_message(ack.SerializeToString())
                await agent.run_workload("reviews-1", "reviews", n=3)
                async with asyncio.timeout(5):
                    again = DeltaDiscoveryResponse.FromString(await stream.recv_message())
                assert again.resources[0].version != response.resources[0].version
                found = await controller.api("GET", "/v1/proxy?proxy=default/client-0")
                assert any(s["type"] == "EDS" for s in found["sync"])
                await stream.cancel()
        finally:
            channel.close()

    async def test_a_proxy_of_nobody_is_refused(self, agent: Agent) -> None:
        channel = agent.channel()
        channel._codec = MixedCodec()
        first = _request(CDS)
        first.node.id = "default/stranger-0"
        try:
            with pytest.raises(GRPCError, match="no proxy 'default/stranger-0' is registered on host one"):
                async with channel.request(DELTA_METHOD, Cardinality.STREAM_STREAM, bytes, bytes) as stream:
                    await stream.send_message(first.SerializeToString())
                    await stream.recv_message()
        finally:
            channel.close()


def _request(kind: TypeUrl, *names: str) -> Any:
    return DeltaDiscoveryRequest(type_url=kind, resource_names_subscribe=names)
